//! The types of WASI resources. The generated bindings export these names, so that they are nominally public.
#![expect(unreachable_pub, reason = "the generated bindings export them")]

/// A resource that exists only as a type, without values.
pub enum Nothing {}
/// Always ready: nothing here ever waits.
pub struct Pollable;
/// Standard input: at its end.
pub struct InputStream;
/// Standard output (1) or error (2), by its number.
pub struct OutputStream;
