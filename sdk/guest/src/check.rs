//! Checks that a text is valid JSON, without building a document.

use crate::document::{DEPTH_MAX, Document, FEW};

/// Checks that [`Document::parse`] would accept `text`. For modules that read a few fields and must know that
/// the rest is valid. Allocates only for texts with escapes or with large objects.
///
/// # Errors
/// The reason, if the text is not JSON to its end or an object has a name twice.
pub fn check(text: &[u8]) -> Result<(), String> {
    if std::str::from_utf8(text).is_ok() {
        let mut skim = Skim { text, at: 0 };
        skim.blanks();
        let is_sound = skim.value(0);
        skim.blanks();
        if is_sound && skim.at == text.len() {
            return Ok(());
        }
    }
    // The full parser handles the rest: objects whose names must be kept, and the wording of errors.
    Document::parse(text).map(|_| ())
}

/// A fast scanner that gives up on unusual texts.
struct Skim<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Skim<'a> {
    #[inline(always)]
    fn peek(&self) -> u8 {
        // A zero byte never occurs within a valid document.
        self.text.get(self.at).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// Skips a value. Returns false if there is none, or if the scanner is not sure.
    #[inline]
    fn value(&mut self, depth: usize) -> bool {
        match self.peek() {
            b'"' => self.string().is_some(),
            b'-' | b'0'..=b'9' => self.number(),
            b'{' => depth < DEPTH_MAX && self.object(depth),
            b'[' => depth < DEPTH_MAX && self.list(depth),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => false,
        }
    }

    fn word(&mut self, word: &[u8]) -> bool {
        let is_it = self
            .text
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(word));
        self.at += word.len();
        is_it
    }

    /// Returns the text between quotes; `None` if it has escapes.
    #[inline(always)]
    fn string(&mut self) -> Option<&'a [u8]> {
        let start = self.at + 1;
        let rest = self.text.get(start..)?;
        let len = rest.iter().position(|b| *b == b'"' || *b == b'\\' || *b < 0x20)?;
        self.at = start + len + 1;
        let text = rest.get(..len)?;
        (rest.get(len) == Some(&b'"')).then_some(text)
    }

    #[inline(always)]
    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        self.at - start
    }

    #[inline]
    fn number(&mut self) -> bool {
        self.at += usize::from(self.peek() == b'-');
        let leads = self.peek();
        let whole = self.digits();
        let mut is_good = whole > 0 && (leads != b'0' || whole == 1);
        if self.peek() == b'.' {
            self.at += 1;
            is_good &= self.digits() > 0;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), b'+' | b'-'));
            is_good &= self.digits() > 0;
        }
        is_good
    }

    /// Skips the byte after an item: true at the closing bracket, false at a comma, else `None`.
    #[inline(always)]
    fn ends(&mut self, close: u8) -> Option<bool> {
        self.blanks();
        let next = self.peek();
        self.at += 1;
        (next == close || next == b',').then_some(next == close)
    }

    fn list(&mut self, depth: usize) -> bool {
        self.at += 1;
        self.blanks();
        if self.peek() == b']' {
            self.at += 1;
            return true;
        }
        loop {
            self.blanks();
            if depth + 1 >= DEPTH_MAX || !self.value(depth + 1) {
                return false;
            }
            match self.ends(b']') {
                Some(false) => {}
                Some(true) => return true,
                None => return false,
            }
        }
    }

    fn object(&mut self, depth: usize) -> bool {
        self.at += 1;
        self.blanks();
        if self.peek() == b'}' {
            self.at += 1;
            return true;
        }
        let (mut names, mut count): ([&[u8]; FEW], usize) = ([b""; FEW], 0);
        loop {
            self.blanks();
            if self.peek() != b'"' {
                return false;
            }
            let Some(name) = self.string() else { return false };
            let before = names.get(..count).unwrap_or_default();
            let Some(place) = (!before.contains(&name)).then(|| names.get_mut(count)).flatten() else {
                return false;
            };
            *place = name;
            count += 1;
            self.blanks();
            if self.peek() != b':' {
                return false;
            }
            self.at += 1;
            self.blanks();
            if depth + 1 >= DEPTH_MAX || !self.value(depth + 1) {
                return false;
            }
            match self.ends(b'}') {
                Some(false) => {}
                Some(true) => return true,
                None => return false,
            }
        }
    }
}
