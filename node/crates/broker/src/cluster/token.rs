//! Join tokens and their proofs.

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use weir_replica::{Claim, JoinRequest, Member};

/// A secret that admits a single node to the site.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 16]);

impl Token {
    /// Creates a token from random bytes.
    pub fn new(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// Parses the form that `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim().strip_prefix("weir-")?;
        let mut bytes = [0; 16];
        if digits.len() != 32 || !digits.is_ascii() {
            return None;
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits.get(2 * i..2 * i + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    pub(crate) fn key(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }

    /// Returns a request to join with this token, on a connection with `binding`.
    pub fn request(&self, member: Member, binding: &[u8; 32]) -> JoinRequest {
        let key = self.key();
        let claim = Claim::Token {
            token: Sha256::digest(key).into(),
            proof: proof(&key, b"join", binding),
        };
        JoinRequest { claim, member }
    }

    /// Returns true if `given` proves that the other side knows the token.
    pub fn is_proved_by(&self, given: &[u8; 32], binding: &[u8; 32]) -> bool {
        same(&proof(&self.key(), b"welcome", binding), given)
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("weir-")?;
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

pub(crate) fn proof(key: &[u8; 32], what: &[u8], binding: &[u8; 32]) -> [u8; 32] {
    // A key of any length is taken.
    Hmac::<Sha256>::new_from_slice(key).map_or([0; 32], |mac| {
        mac.chain_update(what)
            .chain_update(binding)
            .finalize()
            .into_bytes()
            .into()
    })
}

/// Compares in constant time.
pub(crate) fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_nothing_else_is() {
        let token = Token::new(*b"0123456789abcdef");
        assert!(Token::parse(&token.to_string()).is_some_and(|t| t == token));
        for bad in [
            "",
            "weir-",
            "weir-00",
            "30313233",
            &format!("{token}0"),
            "weir-zz313233343536373839616263646566",
        ] {
            assert!(Token::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_proof_holds_for_one_connection_and_one_direction() {
        let token = Token::new([7; 16]);
        let request = token.request(Member::default(), &[1; 32]);
        let Claim::Token { proof: proved, .. } = request.claim else {
            panic!("it claims by the token")
        };
        assert_eq!(proved, proof(&token.key(), b"join", &[1; 32]));
        assert!(!token.is_proved_by(&proved, &[1; 32]));
        let answer = proof(&token.key(), b"welcome", &[1; 32]);
        assert!(token.is_proved_by(&answer, &[1; 32]) && !token.is_proved_by(&answer, &[2; 32]));
    }
}
