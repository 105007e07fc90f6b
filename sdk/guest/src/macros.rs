//! The macros `export!` and `module!`.

/// Exports a [`Module`](crate::Module) from this component.
#[macro_export]
macro_rules! export {
    ($module:ty) => {
        const _: () = {
            #[cfg(target_arch = "wasm32")]
            type Exported = $crate::Adapter<$module>;
            #[cfg(target_arch = "wasm32")]
    $crate::bindings::export!(Exported with_types_in $crate::bindings);
        };
    };
}

/// Writes a module that decides on one record at a time, in a few lines.
///
/// `parameters` are fields of `module`: `name: type = preset, "description";`. `each` takes the module and a
/// [`Record`](crate::Record), and returns a [`Verdict`](crate::Verdict). The generated type is called
/// `Generated`.
#[macro_export]
macro_rules! module {
    (
        about: $about:expr,
        $(parameters: { $($name:ident: $type:ty = $preset:expr, $doc:expr);* $(;)? },)?
        each: |$module:ident, $record:ident| $body:expr
        $(,)?
    ) => {
        #[doc = $about]
        #[derive(Debug)]
        pub struct Generated {
            $($(#[doc = $doc] pub $name: $type,)*)?
        }

        impl $crate::Module for Generated {
            const ABOUT: &'static str = $about;

            fn parameters() -> Vec<$crate::Parameter> {
                vec![$($($crate::Parameter::preset::<$type>(stringify!($name), $preset, $doc),)*)?]
            }

            fn init(config: &$crate::Config) -> Result<(Self, $crate::Interface), String> {
                let _ = config;
                let module = Self { $($($name: config.get(stringify!($name))?,)*)? };
                Ok((module, $crate::Interface::values().and_keys()))
            }

            fn process(&mut self, batch: &$crate::Batch<'_>, out: &mut $crate::Out) -> Result<(), $crate::Fault> {
                let $module = &*self;
                for $record in batch.records() {
                    let verdict: $crate::Verdict = $body;
                    verdict.apply($record.index(), out);
                }
                Ok(())
            }
        }

        $crate::export!(Generated);
    };
}
