#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| openstorage_fuzz::gateway(data));
