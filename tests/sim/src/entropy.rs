//! Randomness of the whole process, from the seed: keys, connection ids, hash maps, election timeouts.
//!
//! Nearly every consumer of random bytes on Linux calls `getrandom` of the C library in the end. The function
//! that is linked here takes precedence (as in S2's `mad-turmoil`), so that no library needs a setting. Key
//! generation asks the kernel itself: handshakes get a provider of their own. Keys must be the same each time
//! to the last byte, since a node's reaction to a stray packet depends on its decryption.

use rustls::NamedGroup;
use rustls::crypto::{ActiveKeyExchange, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup};
use std::sync::atomic::{AtomicU64, Ordering};

static STATE: AtomicU64 = AtomicU64::new(0);

/// All that is random from here on follows from `seed`.
pub(crate) fn seed(seed: u64) {
    STATE.store(seed, Ordering::Relaxed);
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
fn next() -> u64 {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut z = STATE.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// In place of the C library's.
///
/// # Safety
/// `buf` points to `len` bytes that may be written, as the caller of `getrandom(2)` promises.
#[expect(
    unsafe_code,
    reason = "a symbol of the C library, in this binary of tests alone"
)]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getrandom(buf: *mut u8, len: usize, _flags: u32) -> isize {
    // SAFETY: see above.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buf, len) };
    for chunk in bytes.chunks_mut(8) {
        let random = next().to_ne_bytes();
        chunk.copy_from_slice(&random[..chunk.len()]);
    }
    isize::try_from(len).unwrap_or(isize::MAX)
}

/// Key exchange and random bytes of handshakes. Nobody listens in a simulation: the secret is no secret.
#[derive(Debug)]
struct Handshakes;

/// As long as a key of X25519, for which the bytes pass.
type Key = [u8; 32];

/// Has all connections of this process use keys from here.
pub(crate) fn install() {
    let provider = rustls::crypto::CryptoProvider {
        kx_groups: vec![&Handshakes],
        secure_random: &Handshakes,
        ..rustls::crypto::ring::default_provider()
    };
    // Another simulation in the same process has set the seed already.
    let _ = provider.install_default();
}

impl SecureRandom for Handshakes {
    fn fill(&self, buf: &mut [u8]) -> Result<(), GetRandomFailed> {
        for chunk in buf.chunks_mut(8) {
            chunk.copy_from_slice(&next().to_ne_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

impl SupportedKxGroup for Handshakes {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        let mut key = Key::default();
        self.fill(&mut key)?;
        Ok(Box::new(Half(key)))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// A side's part of a secret.
struct Half(Key);

impl ActiveKeyExchange for Half {
    fn complete(self: Box<Self>, other: &[u8]) -> Result<SharedSecret, rustls::Error> {
        let both = self.0.iter().zip(other).map(|(a, b)| a ^ b);
        Ok(SharedSecret::from(&both.collect::<Vec<u8>>()[..]))
    }

    fn pub_key(&self) -> &[u8] {
        &self.0
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// Returns a generator for a single purpose, so that rolls for a purpose do not change those of another.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        Self((seed ^ purpose.wrapping_mul(0xD1B5_4A32_D192_ED03)).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `sides`. xorshift64* (Vigna: An experimental exploration of Marsaglia's xorshift
    /// generators).
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides.max(1)
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.roll(times) == 0
    }
}
