#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::mqtt_session::run(input));
