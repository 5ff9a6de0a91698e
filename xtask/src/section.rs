//! A custom section of a Wasm module.

/// Kind 0 stands for a custom section.
const CUSTOM: u8 = 0;

/// Appends a custom section `name` with `content` to `module`.
///
/// Canisters carry what callers should know about them in such sections; one whose name begins with
/// `icp:public ` can be read by anyone.
pub fn append(module: &mut Vec<u8>, name: &str, content: &[u8]) {
    let name_length = leb128(name.len());
    module.push(CUSTOM);
    module.extend(leb128(name_length.len() + name.len() + content.len()));
    module.extend(name_length);
    module.extend(name.as_bytes());
    module.extend(content);
}

/// `value` as an unsigned LEB128 number: seven bits a byte, the lowest first, the top bit set on all
/// bytes but the last.
fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_seven_bits_a_byte() {
        assert_eq!(leb128(0), [0]);
        assert_eq!(leb128(127), [0x7f]);
        assert_eq!(leb128(128), [0x80, 0x01]);
        assert_eq!(leb128(624_485), [0xe5, 0x8e, 0x26]);
    }

    #[test]
    fn a_section_holds_its_length_its_name_and_its_content() {
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        append(&mut module, "icp:public x", b"service : {}");
        assert_eq!(&module[..8], b"\0asm\x01\0\0\0");
        assert_eq!(module[8..11], [0, 25, 12]);
        assert_eq!(&module[11..], b"icp:public xservice : {}");
    }

    #[test]
    fn a_long_content_is_measured_in_more_bytes() {
        let mut module = Vec::new();
        append(&mut module, "n", &[7; 300]);
        assert_eq!(module[..5], [0, 0xae, 0x02, 1, b'n']);
        assert_eq!(module.len(), 305);
    }
}
