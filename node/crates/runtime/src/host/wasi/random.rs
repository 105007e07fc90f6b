//! `wasi:random`: SHA-256 in counter mode over the module's digest and the time of the batch. Good for hash
//! tables and sampling, but not secret: every node computes the same.

use crate::bindings::wasi_virtual::wasi::random::{insecure, insecure_seed, random};
use crate::host::Guest;
use crate::host::wasi::Wasi;
use crate::limits::WASI_RANDOM_BYTES_MAX;
use sha2::{Digest as _, Sha256};
use wasmtime::Result;

impl Wasi {
    fn block(&mut self) -> [u8; 32] {
        self.blocks += 1;
        let hash = Sha256::new()
            .chain_update(self.seed.as_slice())
            .chain_update(self.now.to_le_bytes())
            .chain_update(self.blocks.to_le_bytes());
        hash.finalize().into()
    }

    fn word(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.block();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    fn fill(&mut self, len: u64) -> Result<Vec<u8>> {
        if len > WASI_RANDOM_BYTES_MAX as u64 {
            return Err(wasmtime::Error::msg(format!(
                "asked for {len} random bytes, at most {WASI_RANDOM_BYTES_MAX} at once"
            )));
        }
        let mut bytes = Vec::with_capacity(len as usize + 32);
        while (bytes.len() as u64) < len {
            bytes.extend_from_slice(&self.block());
        }
        bytes.truncate(len as usize);
        Ok(bytes)
    }
}

impl random::Host for Guest {
    fn get_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        self.wasi.fill(len)
    }

    fn get_random_u64(&mut self) -> Result<u64> {
        Ok(self.wasi.word())
    }
}

impl insecure::Host for Guest {
    fn get_insecure_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        self.wasi.fill(len)
    }

    fn get_insecure_random_u64(&mut self) -> Result<u64> {
        Ok(self.wasi.word())
    }
}

impl insecure_seed::Host for Guest {
    fn insecure_seed(&mut self) -> Result<(u64, u64)> {
        Ok((self.wasi.word(), self.wasi.word()))
    }
}
