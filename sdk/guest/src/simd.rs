//! Classifies 64 bytes at once: four masks per block, with SIMD if available.

/// Masks with a bit per byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Masks {
    pub(crate) quotes: u64,
    pub(crate) backslashes: u64,
    /// `{` and `[`.
    pub(crate) opens: u64,
    /// `}` and `]`.
    pub(crate) closes: u64,
    /// Bytes equal to the needle.
    pub(crate) needles: u64,
}

impl Masks {
    /// Shifts out the first `bytes`, fewer than 64.
    #[inline(always)]
    pub(crate) fn behind(self, bytes: usize) -> Self {
        Self {
            quotes: self.quotes >> bytes,
            backslashes: self.backslashes >> bytes,
            opens: self.opens >> bytes,
            closes: self.closes >> bytes,
            needles: self.needles >> bytes,
        }
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[inline(always)]
pub(crate) fn masks(block: &[u8; 64], needle: u8) -> Masks {
    use core::arch::wasm32::{i8x16_eq, i8x16_splat, u8x16_bitmask, v128, v128_load, v128_or};
    let eq = |v: v128, b: u8| u64::from(u8x16_bitmask(i8x16_eq(v, i8x16_splat(b as i8))));
    let mut m = Masks::default();
    for (i, part) in block.as_chunks::<16>().0.iter().enumerate() {
        #[expect(
            unsafe_code,
            reason = "SAFETY: loads 16 bytes from an array of 16; alignment is not required"
        )]
        let v = unsafe { v128_load(part.as_ptr().cast()) };
        // `[` and `]` differ from `{` and `}` by the bit 0x20.
        let folded = v128_or(v, i8x16_splat(0x20));
        m.quotes |= eq(v, b'"') << (16 * i);
        m.backslashes |= eq(v, b'\\') << (16 * i);
        m.opens |= eq(folded, b'{') << (16 * i);
        m.closes |= eq(folded, b'}') << (16 * i);
        m.needles |= eq(v, needle) << (16 * i);
    }
    m
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn masks(block: &[u8; 64], needle: u8) -> Masks {
    use core::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };
    let mut m = Masks::default();
    for (i, part) in block.as_chunks::<16>().0.iter().enumerate() {
        #[expect(
            unsafe_code,
            reason = "SAFETY: SSE2 is part of x86-64; loads 16 bytes from an array of 16"
        )]
        let (v, folded) = unsafe {
            let v: __m128i = _mm_loadu_si128(part.as_ptr().cast());
            (v, _mm_or_si128(v, _mm_set1_epi8(0x20)))
        };
        #[expect(unsafe_code, reason = "SAFETY: SSE2 is part of x86-64")]
        let eq = |v: __m128i, b: u8| unsafe {
            u64::from(_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8(b as i8))) as u32)
        };
        m.quotes |= eq(v, b'"') << (16 * i);
        m.backslashes |= eq(v, b'\\') << (16 * i);
        m.opens |= eq(folded, b'{') << (16 * i);
        m.closes |= eq(folded, b'}') << (16 * i);
        m.needles |= eq(v, needle) << (16 * i);
    }
    m
}

#[cfg(not(any(
    all(target_arch = "wasm32", target_feature = "simd128"),
    target_arch = "x86_64"
)))]
pub(crate) use portable as masks;

#[cfg_attr(
    any(
        all(target_arch = "wasm32", target_feature = "simd128"),
        target_arch = "x86_64"
    ),
    allow(dead_code, reason = "the reference for the tests")
)]
pub(crate) fn portable(block: &[u8; 64], needle: u8) -> Masks {
    let mut m = Masks::default();
    for (i, b) in block.iter().enumerate() {
        m.quotes |= u64::from(*b == b'"') << i;
        m.backslashes |= u64::from(*b == b'\\') << i;
        m.opens |= u64::from(b | 0x20 == b'{') << i;
        m.closes |= u64::from(b | 0x20 == b'}') << i;
        m.needles |= u64::from(*b == needle) << i;
    }
    m
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_ways_agree() {
        let mut block = [0u8; 64];
        for seed in 0..2_000u32 {
            for (i, b) in block.iter_mut().enumerate() {
                let x = seed.wrapping_mul(2_654_435_761).wrapping_add(i as u32 * 40_503) >> 7;
                *b = b"\"\\{}[]ab :,0\x01\xff"[x as usize % 14];
            }
            assert_eq!(super::masks(&block, b'a'), super::portable(&block, b'a'));
        }
    }
}
