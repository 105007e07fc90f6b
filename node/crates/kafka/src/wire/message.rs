//! Messages as tables.
//!
//! ```ignore
//! messages! {
//!     Request {
//!         group: String [0..],
//!         generation: i32 [1..] = -1,    // what it is in versions that do not have it
//!     }
//! }
//! ```

macro_rules! messages {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $ty:ty [$versions:expr] $(= $default:expr)?),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct $name {
            $(pub(crate) $field: $ty,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $crate::wire::messages!(@default $($default)?),)*
                }
            }
        }

        impl $crate::wire::Wire for $name {
            fn read(
                reader: &mut $crate::wire::Reader,
                version: i16,
            ) -> Result<Self, $crate::wire::WireError> {
                let mut message = Self::default();
                $(
                    if ($versions).contains(&version) {
                        message.$field = $crate::wire::Wire::read(reader, version)?;
                    }
                )*
                reader.end_struct()?;
                Ok(message)
            }

            fn write(&self, writer: &mut $crate::wire::Writer, version: i16) {
                $(
                    if ($versions).contains(&version) {
                        $crate::wire::Wire::write(&self.$field, writer, version);
                    }
                )*
                writer.end_struct();
            }

            #[cfg(test)]
            #[allow(unused_mut, unused_variables, reason = "some messages are empty")]
            fn sample(dice: &mut $crate::wire::Dice, version: i16) -> Self {
                let mut message = Self::default();
                $(
                    if ($versions).contains(&version) {
                        message.$field = $crate::wire::Wire::sample(dice, version);
                    }
                )*
                message
            }
        }
    )*};
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
}
pub(crate) use messages;
