//! Queries for the devices that a condition names.

/// A query for these columns of all devices for which the condition is true. `*` is every device, as
/// in a job.
pub fn devices(columns: &str, condition: Option<&str>) -> String {
    match condition.map(str::trim) {
        None | Some("" | "*") => format!("SELECT {columns} FROM devices"),
        Some(condition) => format!("SELECT {columns} FROM devices WHERE {condition}"),
    }
}

/// A text as the query language quotes it.
pub fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "\\'");
    format!("'{escaped}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_texts_stand_in_queries() {
        assert_eq!(devices("*", None), "SELECT * FROM devices");
        assert_eq!(devices("*", Some(" * ")), "SELECT * FROM devices");
        assert_eq!(
            devices("deviceId", Some("tags.a = 1")),
            "SELECT deviceId FROM devices WHERE tags.a = 1"
        );
        assert_eq!(quoted(r"a'b\c"), r"'a\'b\\c'");
    }
}
