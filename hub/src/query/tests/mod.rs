//! The language as the documentation has it.

use serde_json::{Value, json};

use super::*;

mod refusals;
mod results;
mod sqlite;

/// A twin as the REST API shows it.
fn twin() -> Value {
    json!({
        "deviceId": "myDeviceId", "etag": "AAAAAAAAAAc=", "deviceEtag": "NTI", "version": 2,
        "status": "enabled", "connectionState": "Disconnected",
        "lastActivityTime": "2021-05-07T00:50:38.0543092Z",
        "x509Thumbprint": { "primaryThumbprint": null, "secondaryThumbprint": null },
        "capabilities": { "iotEdge": false },
        "tags": {
            "location": { "region": "US", "plant": "Redmond43" },
            "group": { "name": "a" }, "odd name": { "x.y": 1 }, "flag": true, "n": 5,
            "list": [1, "a"], "2nd": "é😀", "devices": { "x": 1 },
        },
        "properties": {
            "desired": { "telemetryConfig": { "sendFrequencyInSecs": 300 }, "$version": 4 },
            "reported": {
                "connectivity": "wifi", "Connectivity": "wired", "f": 0.5,
                "telemetryConfig": { "sendFrequencyInSecs": 300, "status": "Success" },
                "$version": 7,
            },
        },
    })
}

/// Whether a condition selects the twin.
fn is(condition: &str) -> bool {
    let parsed = Condition::parse(condition).unwrap_or_else(|error| panic!("{condition}: {error}"));
    let selected = parsed.matches(&twin());
    // What it reads is enough for it.
    let pruned = parsed.fields().read(&twin().to_string()).unwrap();
    assert_eq!(parsed.matches(&pruned.into()), selected, "{condition}");
    selected
}

/// True, false or undefined: only the first two are not the same when they are negated.
fn truth(condition: &str) -> Option<bool> {
    match (is(condition), is(&format!("NOT ({condition})"))) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
        (true, true) => panic!("{condition}"),
    }
}

#[test]
fn nothing_and_a_star_select_everything() {
    for condition in ["", "  ", "*", " * "] {
        assert!(is(condition), "{condition:?}");
    }
    assert!(Condition::parse("* AND 1 = 1").is_err());
}

#[test]
fn a_condition_may_say_what_it_is_on() {
    for (condition, source) in [
        ("deviceId = 'myDeviceId'", Source::Devices),
        ("FROM devices", Source::Devices),
        ("from devices where tags.n = 5", Source::Devices),
        ("FROM devices.modules", Source::Modules),
        // As IoT Hub's users write it.
        (
            "FROM devices.modules WHERE ModuleId = 'm' OR deviceId = 'myDeviceId'",
            Source::Modules,
        ),
        (
            "FROM devices.modules WHERE devices.modules.tags.n = 5",
            Source::Modules,
        ),
    ] {
        assert_eq!(Condition::parse(condition).unwrap().source(), source);
        assert!(is(condition), "{condition}");
    }
    for (condition, part) in [
        (
            "FROM devices.jobs WHERE jobId = 'j'",
            "devices or devices.modules",
        ),
        ("FROM", "behind FROM"),
        ("FROM twins WHERE tags.n = 5", "behind FROM"),
        ("FROM devices.modules WHERE", "a value"),
        ("FROM devices.modules WHERE *", "a value"),
        ("FROM devices.modules tags.n = 5", "the end of the query"),
        (
            "FROM devices.modules WHERE tagz.n = 5",
            "no property `tagz`",
        ),
        ("SELECT * FROM devices", "a value"),
    ] {
        let error = Condition::parse(condition).expect_err(condition);
        assert!(error.message.contains(part), "{condition}: {error}");
    }
}

#[test]
fn conditions_of_the_documentation() {
    for condition in [
        "tags.location.region = 'US'",
        "tags.location.region = 'US'\n AND properties.reported.telemetryConfig.sendFrequencyInSecs >= 60",
        "properties.reported.connectivity IN ['wired', 'wifi']",
        "is_defined(properties.reported.connectivity)",
        "status = 'enabled' AND connectionState = 'Disconnected'",
        "deviceId IN ['device1', 'myDeviceId']",
        "DeviceId IN ['myDeviceId']",
        "devices.deviceId = \"myDeviceId\"",
        "LastActivityTime > '2021-05-06' AND lastactivitytime < '2021-05-08'",
        "properties.desired.telemetryConfig.sendFrequencyInSecs = \
            properties.reported.telemetryConfig.sendFrequencyInSecs",
        "tags.[[group]].name = 'a' AND tags.group.name = 'a'",
        "tags.[[odd name]].[[x.y]] = 1",
        "capabilities.iotEdge = false",
        "properties.reported.$version = 7",
        "tags.devices.x = 1 AND devices.tags.devices.x = 1",
        "Properties.Reported.connectivity = 'wifi'",
        "properties.reported.Connectivity = 'wired'",
        "tags.2nd = '\\u00e9\\uD83D\\uDE00'",
        "tags.flag",
        "NOT tags.flag = false",
        "0x1F = 31 AND 1.5e1 = 15",
        "deviceId NIN ['a'] AND deviceId NOT IN ['b']",
        "x509Thumbprint.primaryThumbprint = null",
    ] {
        assert!(is(condition), "{condition}");
    }
}

#[test]
fn what_does_not_fit_is_undefined() {
    for condition in [
        "tags.none = 1",
        "tags.none != 1",
        "tags.none IN [1]",
        "tags.none NIN [1]",
        "tags.none = undefined",
        "tags.none = null",
        "tags.n = '5'",
        "tags.n != '5'",
        "tags.n < '6'",
        "tags.n IN ['5']",
        "tags.n NIN ['5']",
        "tags.n IN []",
        "tags.flag = 1",
        "tags.location = tags.location",
        "tags.list != tags.list",
        "tags.list = [1, 'a']",
        "tags.location.region + 1 = 1",
        "tags.n / 0 = 1",
        "tags.n % 0 = 1",
        "LOWER(tags.n) = '5'",
        "tags.location.region.x = 1",
        "tags.n",
        "'true'",
        "null",
        "undefined",
        "tags",
    ] {
        assert_eq!(truth(condition), None, "{condition}");
    }
}

#[test]
fn logic_has_three_values() {
    let values = [
        ("1=1", Some(true)),
        ("1=0", Some(false)),
        ("undefined", None),
    ];
    for (left, l) in values {
        assert_eq!(truth(&format!("NOT {left}")), l.map(|l| !l));
        for (right, r) in values {
            let and = match (l, r) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            };
            let or = match (l, r) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            };
            assert_eq!(
                truth(&format!("{left} AND {right}")),
                and,
                "{left} AND {right}"
            );
            assert_eq!(
                truth(&format!("{left} OR {right}")),
                or,
                "{left} OR {right}"
            );
        }
    }
}

#[test]
fn operators_have_their_precedence() {
    for condition in [
        "1 + 2 * 3 = 7",
        "(1 + 2) * 3 = 9",
        "10 - 4 - 3 = 3",
        "24 / 4 / 2 = 3",
        "7 % 4 * 2 = 6",
        "- 2 * 3 = -6",
        "1 - -1 = 2",
        "1=1 OR 1=1 AND 1=0",
        "NOT 1=0 AND 1=1",
        "NOT (1=0 AND 1=1)",
        "NOT NOT 1=1",
        "2 > 1 AND 'b' > 'a' AND true > false AND 'a' <> 'B' AND 'B' < 'a'",
        "tags.n * 2 <= 10 AND tags.n / 2 = 2.5 AND -tags.n < 0",
    ] {
        assert_eq!(truth(condition), Some(true), "{condition}");
    }
}

#[test]
fn functions_of_the_documentation() {
    for condition in [
        "IS_DEFINED(tags.n) AND NOT IS_DEFINED(tags.none)",
        "IS_DEFINED(x509Thumbprint.primaryThumbprint) AND IS_NULL(x509Thumbprint.primaryThumbprint)",
        "IS_STRING(deviceId) AND NOT IS_STRING(tags.n) AND NOT IS_STRING(tags.none)",
        "IS_NUMBER(tags.n) AND IS_BOOL(tags.flag) AND IS_ARRAY(tags.list) AND IS_OBJECT(tags)",
        "IS_PRIMITIVE(null) AND NOT IS_PRIMITIVE(tags.list) AND NOT IS_PRIMITIVE(tags.none)",
        "IS_ARRAY([1, 'a']) AND IS_ARRAY([])",
        "STARTSWITH(deviceId, 'my') AND starts_with(deviceId, 'my') AND NOT STARTSWITH(deviceId, 'My')",
        "ENDSWITH(deviceId, 'Id') AND ENDS_WITH(deviceId, 'Id') AND CONTAINS(deviceId, 'Dev')",
        "SUBSTRING(deviceId, 2) = 'DeviceId' AND SUBSTRING(deviceId, 2, 3) = 'Dev'",
        "SUBSTRING(deviceId, 99) = '' AND SUBSTRING(deviceId, 0, 0) = ''",
        "NOT IS_DEFINED(SUBSTRING(deviceId, -1)) AND NOT IS_DEFINED(SUBSTRING(deviceId, 0.5))",
        "LENGTH(tags.2nd) = 2 AND LOWER('ÄB') = 'äb' AND UPPER('äb') = 'ÄB'",
        "INDEX_OF(tags.2nd, '😀') = 1 AND INDEX_OF('abc', 'x') = -1 AND INDEX_OF('abc', '') = 0",
        "CONCAT('a', 'b', deviceId) = 'abmyDeviceId' AND NOT IS_DEFINED(CONCAT('a', 1))",
        "ABS(-2) = 2 AND CEILING(1.2) = 2 AND FLOOR(-1.2) = -2 AND SIGN(-3) = -1 AND SIGN(0) = 0",
        "SQRT(9) = 3 AND SQUARE(3) = 9 AND POWER(2, 10) = 1024 AND EXP(0) = 1",
        "NOT IS_DEFINED(SQRT(-1)) AND NOT IS_DEFINED(EXP(1e9))",
        "AS_NUMBER('1.5') = 1.5 AND AS_NUMBER(2) = 2 AND NOT IS_DEFINED(AS_NUMBER('inf'))",
        "NOT IS_DEFINED(AS_NUMBER('x')) AND NOT IS_DEFINED(AS_NUMBER(true))",
    ] {
        assert_eq!(truth(condition), Some(true), "{condition}");
    }
}

#[test]
fn jobs_have_words_of_their_own() {
    let row = json!({
        "deviceId": "d", "jobId": "j", "jobType": "scheduleUpdateTwin", "status": "completed",
        "createdDateTimeUtc": "2016-09-29T18:18:56.7787107Z",
        "outcome": { "deviceMethodResponse": { "status": 200 } },
    });
    for condition in [
        "devices.jobs.deviceId = 'd' AND devices.jobs.jobType = 'scheduleTwinUpdate' \
            AND devices.jobs.status = 'completed' AND devices.jobs.createdTimeUtc > '2016-09-01'",
        "jobType = 'scheduleUpdateTwin' AND JobId = 'j'",
        "jobType IN ['scheduleTwinUpdate', 'x'] AND createdDateTimeUtc < '2017'",
        "outcome.deviceMethodResponse.status = 200",
    ] {
        let text = format!("SELECT * FROM devices.jobs WHERE {condition}");
        let query = Query::parse(&text).unwrap();
        let mut selection = Selection::new(&query, None, 1);
        let _ = selection.add("j", &row, || ());
        assert_eq!(selection.finish().rows.len(), 1, "{condition}");
    }
}

#[test]
fn equalities_narrow_the_search() {
    let of = |condition: &str| Condition::parse(condition).unwrap().narrowing();
    let ids =
        |ids: &[&str]| Narrowing::Ids("deviceId", ids.iter().map(|id| (*id).to_owned()).collect());
    let tags = |tags: &[(&str, &str)]| {
        let tags = tags.iter().map(|(path, value)| TagValue {
            path: (*path).to_owned(),
            value: (*value).to_owned(),
        });
        Narrowing::Tags(tags.collect())
    };
    for (condition, narrowing) in [
        ("deviceId = 'a'", ids(&["a"])),
        ("'a' = devices.DeviceId AND tags.x > 1", ids(&["a"])),
        ("deviceId = 'a' OR deviceId IN ['b', 1]", ids(&["a", "b"])),
        ("deviceId = 1", ids(&[])),
        (
            "tags.a.b = 'x' AND status = 'enabled'",
            tags(&[(r#"["a","b"]"#, r#""x""#)]),
        ),
        (
            "tags.a IN [1, true, null]",
            tags(&[
                (r#"["a"]"#, "1"),
                (r#"["a"]"#, "true"),
                (r#"["a"]"#, "null"),
            ]),
        ),
        (
            "tags.a = 1 OR tags.b = 0.5",
            tags(&[(r#"["a"]"#, "1"), (r#"["b"]"#, "0.5")]),
        ),
        ("tags.a = 1 AND deviceId = 'a'", ids(&["a"])),
        ("tags.a = 1 OR deviceId = 'a'", Narrowing::All),
        ("tags.a != 1", Narrowing::All),
        ("tags.a NIN [1]", Narrowing::All),
        ("NOT tags.a = 1", Narrowing::All),
        ("tags.a = tags.b", Narrowing::All),
        ("status = 'enabled'", Narrowing::All),
        ("*", Narrowing::All),
    ] {
        assert_eq!(of(condition), narrowing, "{condition}");
    }
    let known = tag_values(twin()["tags"].as_object().unwrap());
    for condition in [
        "tags.location.region = 'US'",
        "tags.[[odd name]].[[x.y]] = 1.0",
        "tags.flag = true",
    ] {
        let Narrowing::Tags(wanted) = of(condition) else {
            panic!("{condition}")
        };
        assert!(wanted.is_subset(&known), "{condition}: {known:?}");
    }
}
