//! Messages as tables.
//!
//! ```ignore
//! messages! {
//!     Request {
//!         group: String [0..],
//!         generation: i32 [1..] = -1,    // what it is in versions that do not have it
//!     } + {
//!         leader: Leader [10..] 0,       // under the tag 0, and left out where it is the default
//!     }
//! }
//! ```

macro_rules! messages {
    ($(
        $(#[$meta:meta])* $name:ident { $($field:ident: $ty:ty [$versions:expr] $(= $default:expr)?),* $(,)? }
        $(+ { $($tagged:ident: $tagged_ty:ty [$tagged_versions:expr] $tag:literal),* $(,)? })?
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct $name {
            $(pub(crate) $field: $ty,)*
            $($(pub(crate) $tagged: $tagged_ty,)*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $crate::wire::messages!(@default $($default)?),)*
                    $($($tagged: Default::default(),)*)?
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
                reader.end_struct(|_tag, _reader| {
                    $($(
                        if _tag == $tag && ($tagged_versions).contains(&version) {
                            message.$tagged = $crate::wire::Wire::read(_reader, version)?;
                        }
                    )*)?
                    Ok(())
                })?;
                Ok(message)
            }

            fn write(&self, writer: &mut $crate::wire::Writer, version: i16) {
                $(
                    if ($versions).contains(&version) {
                        $crate::wire::Wire::write(&self.$field, writer, version);
                    }
                )*
                #[allow(unused_mut, reason = "most messages have no tagged fields")]
                let mut tagged = Vec::new();
                $($(
                    if ($tagged_versions).contains(&version) && self.$tagged != <$tagged_ty>::default() {
                        tagged.push(($tag, writer.apart(|writer| $crate::wire::Wire::write(&self.$tagged, writer, version))));
                    }
                )*)?
                writer.end_struct(&tagged);
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
                $($(
                    if ($tagged_versions).contains(&version) {
                        message.$tagged = $crate::wire::Wire::sample(dice, version);
                    }
                )*)?
                message
            }
        }
    )*};
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
}
pub(crate) use messages;
