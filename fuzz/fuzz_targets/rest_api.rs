#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::rest_api::run(input));
