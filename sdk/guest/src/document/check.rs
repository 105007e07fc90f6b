//! Whether a text is a document, without keeping any of it.

use super::{DEPTH_MAX, Document, FEW, Parser, not_json};
use std::borrow::Cow;

/// Whether [`Document::parse`] takes `text`: for those who read a field or two and must know that the rest is sound. It keeps
/// nothing and allocates nothing where names have no escapes and objects few fields.
///
/// # Errors
/// In words, when it is not JSON to its end, or has a name twice in an object.
pub fn check(text: &[u8]) -> Result<(), String> {
    let utf8 = std::str::from_utf8(text).map_err(|e| not_json(e.valid_up_to()))?;
    let mut parser = Parser { text: utf8, at: 0 };
    parser.blanks();
    let skipped = parser.skip(0);
    parser.blanks();
    match (skipped, parser.at == text.len()) {
        (Ok(true), true) => Ok(()),
        // The whole of it is read where names must be kept, and for its words where it is not sound.
        _ => Document::parse(text).map(|_| ()),
    }
}

impl<'a> Parser<'a> {
    /// Goes past a value. False where its names could not all be compared.
    fn skip(&mut self, depth: usize) -> Result<bool, String> {
        if depth >= DEPTH_MAX {
            return Err(format!("value nests deeper than {DEPTH_MAX}"));
        }
        match self.peek() {
            Some(b'{') => self.skip_object(depth),
            Some(b'[') => self.skip_list(depth),
            Some(b'"') => self.string().map(|_| true),
            Some(b'-' | b'0'..=b'9') => self.number().map(|_| true),
            _ => self.word().map(|_| true),
        }
    }

    fn skip_list(&mut self, depth: usize) -> Result<bool, String> {
        self.at += 1;
        self.blanks();
        let mut is_sure = true;
        if self.take(b']') {
            return Ok(is_sure);
        }
        loop {
            self.blanks();
            is_sure &= self.skip(depth + 1)?;
            self.blanks();
            if self.take(b']') {
                return Ok(is_sure);
            }
            if !self.take(b',') {
                return Err(not_json(self.at));
            }
        }
    }

    fn skip_object(&mut self, depth: usize) -> Result<bool, String> {
        self.at += 1;
        self.blanks();
        let (mut names, mut count, mut is_sure) = ([""; FEW], 0, true);
        if self.take(b'}') {
            return Ok(is_sure);
        }
        loop {
            self.blanks();
            if self.peek() != Some(b'"') {
                return Err(not_json(self.at));
            }
            match (self.string()?, names.get_mut(count)) {
                (Cow::Borrowed(name), Some(place)) => *place = name,
                _ => is_sure = false,
            }
            let before = names.get(..count).unwrap_or_default();
            let is_twice = names.get(count).is_some_and(|name| before.contains(name));
            is_sure &= !is_twice;
            count += 1;
            self.blanks();
            if !self.take(b':') {
                return Err(not_json(self.at));
            }
            self.blanks();
            is_sure &= self.skip(depth + 1)?;
            self.blanks();
            if self.take(b'}') {
                return Ok(is_sure);
            }
            if !self.take(b',') {
                return Err(not_json(self.at));
            }
        }
    }
}
