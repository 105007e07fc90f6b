//! Paths to values in a document.

/// A parsed path to a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub(crate) names: Vec<Box<[u8]>>,
}

impl Path {
    /// Parses a path with dots, or a JSON Pointer (RFC 6901) if `text` begins with `/`. Pointers reach names
    /// with dots and items of arrays.
    pub fn new(text: &str) -> Self {
        let plain = |name: &str| name.replace("~1", "/").replace("~0", "~");
        let names: Vec<String> = match text.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(plain).collect(),
            None => text.split('.').map(str::to_owned).collect(),
        };
        Self {
            names: names.into_iter().map(|name| name.into_bytes().into()).collect(),
        }
    }

    /// Parses a path and checks its names.
    ///
    /// # Errors
    /// The reason, if a name is empty or the JSON Pointer is malformed.
    pub fn read(text: &str) -> Result<Self, String> {
        let is_whole = match text.strip_prefix('/') {
            // A tilde escapes itself or a slash (RFC 6901, section 3); a name may be empty.
            Some(pointer) => pointer
                .split('~')
                .skip(1)
                .all(|rest| rest.starts_with(['0', '1'])),
            None => text.split('.').all(|name| !name.is_empty()),
        };
        match is_whole {
            true => Ok(Self::new(text)),
            false => Err(format!(
                "`{text}` is not a path: write `a.b`, or for names with dots a JSON Pointer, `/a.b/0`, with `~0` for `~` and `~1` for `/`"
            )),
        }
    }

    /// Returns the names, the outermost first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names
            .iter()
            .map(|name| std::str::from_utf8(name).unwrap_or_default())
    }
}
