#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::proxy_answers::run(input));
