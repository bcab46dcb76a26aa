//! Runs the fuzz targets of the parsers and of the hub on their corpora, as regression tests.

use harness::corpus::play;
use harness::parsers;

#[test]
fn topics() {
    play("topics", parsers::topics);
}

#[test]
fn sas_tokens() {
    play("sas_token", parsers::sas_token);
}

#[test]
fn connection_strings() {
    play("connection_string", parsers::connection_string);
}

#[test]
fn mqtt_sessions() {
    play("mqtt_session", harness::mqtt_session::run);
}

#[test]
fn http_routes() {
    play("http_routes", harness::http_routes::run);
}

#[test]
fn queries() {
    play("query", harness::query::run);
}

#[test]
fn pending_table() {
    play("pending_table", harness::tables::pending_table);
}

#[test]
fn legs_table() {
    play("legs_table", harness::tables::legs_table);
}
