#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::http_routes::run(input));
