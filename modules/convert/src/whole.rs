//! Whole numbers of any size, as decimal digits and as bytes.

/// Maximum size in bytes: the cost of a conversion grows with the square of the length.
pub(crate) const BYTES_MAX: usize = 128;

/// Returns the decimal digits of a big-endian number.
pub(crate) fn digits(bytes: &[u8]) -> String {
    let mut rest = bytes.to_vec();
    let mut digits = Vec::new();
    while rest.iter().any(|b| *b != 0) {
        let mut carry = 0u16;
        for byte in &mut rest {
            let value = carry << 8 | u16::from(*byte);
            *byte = (value / 10) as u8;
            carry = value % 10;
        }
        digits.push(b'0' + carry as u8);
    }
    if digits.is_empty() {
        digits.push(b'0');
    }
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

/// Returns the big-endian bytes of a decimal number, without leading zeros.
pub(crate) fn bytes(digits: &str) -> Option<Vec<u8>> {
    let mut bytes: Vec<u8> = Vec::new();
    for digit in digits.bytes() {
        let mut carry = u16::from(digit.checked_sub(b'0').filter(|d| *d < 10)?);
        for byte in &mut bytes {
            let value = u16::from(*byte) * 10 + carry;
            *byte = value as u8;
            carry = value >> 8;
        }
        if carry > 0 {
            bytes.push(carry as u8);
        }
        if bytes.len() > BYTES_MAX {
            return None;
        }
    }
    bytes.reverse();
    Some(bytes)
}

/// Returns the successor of the number in `bytes`: a negative number -1 - n is stored as n.
pub(crate) fn next(bytes: &[u8]) -> Vec<u8> {
    let mut next = bytes.to_vec();
    for byte in next.iter_mut().rev() {
        let (sum, over) = byte.overflowing_add(1);
        *byte = sum;
        if !over {
            return next;
        }
    }
    next.insert(0, 1);
    next
}

/// Returns the predecessor of the number in `bytes`, which is not 0.
pub(crate) fn previous(bytes: &[u8]) -> Vec<u8> {
    let mut previous = bytes.to_vec();
    for byte in previous.iter_mut().rev() {
        let (rest, under) = byte.overflowing_sub(1);
        *byte = rest;
        if !under {
            break;
        }
    }
    let zeros = previous.iter().take_while(|b| **b == 0).count();
    previous.split_off(zeros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_bytes_are_the_same_number() {
        for text in [
            "1",
            "255",
            "256",
            "18446744073709551616",
            "12345678901234567890123",
        ] {
            let number = bytes(text).unwrap();
            assert_eq!(digits(&number), text);
            assert_eq!(digits(&previous(&next(&number))), text);
        }
        assert_eq!(digits(&next(&[255])), "256");
        assert_eq!(digits(&[]), "0");
        assert_eq!(previous(&[1]), Vec::<u8>::new());
        assert_eq!(bytes(&"9".repeat(400)), None);
    }
}
