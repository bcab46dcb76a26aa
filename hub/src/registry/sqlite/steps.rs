//! What each version of the registry's tables adds to the one before. A step that was taken once, on
//! whatever machine, is never changed: what it says twice stays twice.

/// Every step from an empty database to the present one.
pub(super) const STEPS: [&str; 18] = [
    FIRST,
    TWINS,
    MEMBERS,
    SUBSCRIPTIONS,
    TAGS,
    JOBS,
    TAG_VALUES,
    MESSAGES,
    MODULE_JOBS,
    ENROLMENTS,
    USAGE,
    AUTHORITIES,
    TOKENS,
    APPROVALS,
    NOTES,
    APPROVERS,
    APPROVAL_NEWS,
    TWIN_READ,
];

/// `point` in `changes` counts up for ever, also when old rows go: it begins at 2, so
/// that 1 is the point of an untouched registry and 0 can mean "not asked before".
const FIRST: &str = "
CREATE TABLE identities (
    device               TEXT NOT NULL,
    module               TEXT NOT NULL,     -- '' for the device itself
    generation           TEXT NOT NULL,
    etag                 TEXT NOT NULL,
    enabled              INTEGER NOT NULL CHECK (enabled IN (0, 1)), -- the device's row decides
    status_reason        TEXT,
    status_updated       INTEGER,           -- Unix seconds
    authentication       TEXT NOT NULL,
    primary_credential   TEXT,              -- a key in base64 or a thumbprint in hex
    secondary_credential TEXT,
    PRIMARY KEY (device, module)
) STRICT, WITHOUT ROWID;

CREATE TABLE policies (
    name            TEXT NOT NULL PRIMARY KEY,
    registry_read   INTEGER NOT NULL,
    registry_write  INTEGER NOT NULL,
    service_connect INTEGER NOT NULL,
    device_connect  INTEGER NOT NULL,
    primary_key     TEXT NOT NULL,
    secondary_key   TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE changes (
    point  INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    module TEXT NOT NULL
) STRICT;
INSERT INTO sqlite_sequence (name, seq) VALUES ('changes', 1);

CREATE TRIGGER identity_updated AFTER UPDATE ON identities BEGIN
    INSERT INTO changes (device, module) VALUES (NEW.device, NEW.module);
END;
CREATE TRIGGER identity_deleted AFTER DELETE ON identities BEGIN
    INSERT INTO changes (device, module) VALUES (OLD.device, OLD.module);
END;
";

/// A twin's row is made by its first change; it goes with its identity. A table of its
/// own: changes of `identities` make the hub look again at who may be connected.
const TWINS: &str = "
CREATE TABLE twins (
    device            TEXT NOT NULL,
    module            TEXT NOT NULL,     -- '' for the device itself
    version           INTEGER NOT NULL,
    etag              TEXT NOT NULL,
    desired           TEXT NOT NULL,     -- JSON objects, without $metadata and $version
    desired_metadata  TEXT NOT NULL,
    desired_version   INTEGER NOT NULL,
    reported          TEXT NOT NULL,
    reported_metadata TEXT NOT NULL,
    reported_version  INTEGER NOT NULL,
    PRIMARY KEY (device, module)
) STRICT;

CREATE TRIGGER identity_deleted_twin AFTER DELETE ON identities BEGIN
    DELETE FROM twins WHERE device = OLD.device AND module = OLD.module;
END;
";

/// The rest of what IoT Hub keeps of an identity. Activity has a table of its own, as twins
/// have: it changes often, and has no say in who may be connected.
const MEMBERS: &str = "
ALTER TABLE identities ADD COLUMN iot_edge INTEGER NOT NULL DEFAULT 0 CHECK (iot_edge IN (0, 1));
ALTER TABLE identities ADD COLUMN device_scope TEXT;
ALTER TABLE identities ADD COLUMN parent_scopes TEXT NOT NULL DEFAULT '[]'; -- a JSON array
ALTER TABLE identities ADD COLUMN managed_by TEXT;

CREATE TABLE activity (
    device                   TEXT NOT NULL,
    module                   TEXT NOT NULL,     -- '' for the device itself
    generation               TEXT NOT NULL,     -- the identity's
    connected                INTEGER NOT NULL CHECK (connected IN (0, 1)),
    connection_state_updated INTEGER,           -- Unix microseconds
    last_activity            INTEGER,           -- Unix microseconds
    PRIMARY KEY (device, module)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER identity_deleted_activity AFTER DELETE ON identities BEGIN
    DELETE FROM activity WHERE device = OLD.device AND module = OLD.module;
END;
";

/// What identities have subscribed in sessions that outlive their connections. It goes with
/// the identity, and belongs to one creation of it.
const SUBSCRIPTIONS: &str = "
CREATE TABLE subscriptions (
    device     TEXT NOT NULL,
    module     TEXT NOT NULL,     -- '' for the device itself
    generation TEXT NOT NULL,     -- the identity's
    filters    TEXT NOT NULL,     -- a JSON object: filter to granted QoS
    PRIMARY KEY (device, module)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER identity_deleted_subscriptions AFTER DELETE ON identities BEGIN
    DELETE FROM subscriptions WHERE device = OLD.device AND module = OLD.module;
END;
";

/// What services note about devices.
const TAGS: &str = "ALTER TABLE twins ADD COLUMN tags TEXT NOT NULL DEFAULT '{}'; -- a JSON object";

/// Jobs, and what has become of them on each device. Devices may be gone: their rows stay.
const JOBS: &str = "
CREATE TABLE jobs (
    id              TEXT NOT NULL PRIMARY KEY,
    kind            TEXT NOT NULL,
    condition       TEXT NOT NULL,
    content         TEXT NOT NULL,     -- JSON: the change or the method
    policy          TEXT NOT NULL,
    start           INTEGER NOT NULL,  -- Unix microseconds, as all times here
    max_seconds     INTEGER NOT NULL,
    created         INTEGER NOT NULL,
    status          TEXT NOT NULL,
    began           INTEGER,
    ended           INTEGER,
    failure         TEXT,
    has_all_devices INTEGER NOT NULL CHECK (has_all_devices IN (0, 1))
) STRICT, WITHOUT ROWID;
CREATE INDEX jobs_by_age ON jobs (created, id);
CREATE INDEX jobs_that_are_open ON jobs (start) WHERE ended IS NULL;

CREATE TABLE device_jobs (
    job     TEXT NOT NULL,
    device  TEXT NOT NULL,
    status  TEXT NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    started INTEGER,
    ended   INTEGER,
    outcome TEXT,                      -- JSON, as services read it
    error   TEXT,                      -- JSON, as services read it
    PRIMARY KEY (job, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX device_jobs_by_status ON device_jobs (job, status, device);
CREATE INDEX device_jobs_by_device ON device_jobs (device, job);

CREATE TRIGGER job_deleted AFTER DELETE ON jobs BEGIN
    DELETE FROM device_jobs WHERE job = OLD.id;
END;
";

/// Which twins have which tag, for queries: `path` is a JSON array of names, and `value` is JSON.
pub(super) const TAG_VALUES: &str = "
CREATE TABLE tag_values (
    path   TEXT NOT NULL,
    value  TEXT NOT NULL,
    device TEXT NOT NULL,
    module TEXT NOT NULL,     -- '' for the device itself
    PRIMARY KEY (path, value, device, module)
) STRICT, WITHOUT ROWID;
CREATE INDEX tag_values_of ON tag_values (device, module);

CREATE TRIGGER identity_deleted_tag_values AFTER DELETE ON identities BEGIN
    DELETE FROM tag_values WHERE device = OLD.device AND module = OLD.module;
END;
";

/// Messages that wait for devices.
const MESSAGES: &str = "
CREATE TABLE messages (
    sequence   INTEGER PRIMARY KEY AUTOINCREMENT,
    device     TEXT NOT NULL,
    deliveries INTEGER NOT NULL,
    expires    INTEGER NOT NULL,  -- Unix microseconds
    properties TEXT NOT NULL,     -- as they stand in the topic of MQTT
    payload    BLOB NOT NULL
) STRICT;
CREATE INDEX messages_of ON messages (device, sequence);

CREATE TRIGGER identity_deleted_messages AFTER DELETE ON identities WHEN OLD.module = '' BEGIN
    DELETE FROM messages WHERE device = OLD.device;
END;
";

/// Jobs work on modules, too. The key has another column, so the table is made anew.
const MODULE_JOBS: &str = "
DROP TRIGGER job_deleted;
ALTER TABLE device_jobs RENAME TO old_device_jobs;
CREATE TABLE device_jobs (
    job     TEXT NOT NULL,
    device  TEXT NOT NULL,
    module  TEXT NOT NULL,             -- '' for the device itself
    status  TEXT NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    started INTEGER,
    ended   INTEGER,
    outcome TEXT,                      -- JSON, as services read it
    error   TEXT,                      -- JSON, as services read it
    PRIMARY KEY (job, device, module)
) STRICT, WITHOUT ROWID;
INSERT INTO device_jobs SELECT job, device, '', status, created, updated, started, ended, outcome,
    error FROM old_device_jobs;
DROP TABLE old_device_jobs;
CREATE INDEX device_jobs_by_status ON device_jobs (job, status, device, module);
CREATE INDEX device_jobs_by_device ON device_jobs (device, job, module);

CREATE TRIGGER job_deleted AFTER DELETE ON jobs BEGIN
    DELETE FROM device_jobs WHERE job = OLD.id;
END;
";

/// Codes that were not redeemed yet, or by a device whose answer may have been lost: of a code only
/// its digest.
const ENROLMENTS: &str = "
CREATE TABLE enrolments (
    digest  BLOB NOT NULL PRIMARY KEY,
    device  TEXT,              -- of a device's code, when it names one
    policy  TEXT,              -- of an operator's code
    expires INTEGER NOT NULL,  -- Unix seconds
    used_by TEXT               -- a thumbprint in hex
) STRICT, WITHOUT ROWID;
";

/// How many bytes were moved on a day, by whom there is a limit for.
const USAGE: &str = "
CREATE TABLE usage (
    day    INTEGER NOT NULL,  -- since 1970
    kind   TEXT NOT NULL,     -- hub, policy or device
    name   TEXT NOT NULL,
    module TEXT NOT NULL,     -- '' for the device itself
    bytes  INTEGER NOT NULL,
    PRIMARY KEY (day, kind, name, module)
) STRICT, WITHOUT ROWID;
";

/// CAs whose certificates devices may show.
const AUTHORITIES: &str = "
CREATE TABLE authorities (
    name        TEXT NOT NULL PRIMARY KEY,
    certificate BLOB NOT NULL,         -- DER
    digest      BLOB NOT NULL UNIQUE,  -- of its subject and public key
    crl_file    TEXT,                  -- an absolute path
    added       INTEGER NOT NULL       -- Unix seconds
) STRICT, WITHOUT ROWID;
";

/// Tokens that were issued by name, and who gets none. A person has `issuer`, `subject` and `groups`,
/// another holder a `policy`.
const TOKENS: &str = "
CREATE TABLE tokens (
    id      TEXT NOT NULL PRIMARY KEY,
    name    TEXT NOT NULL,
    policy  TEXT,
    issuer  TEXT,
    subject TEXT,
    groups  TEXT,                        -- a JSON array
    key     TEXT NOT NULL,
    created INTEGER NOT NULL,            -- Unix seconds
    expires INTEGER NOT NULL,            -- Unix seconds
    revoked INTEGER NOT NULL DEFAULT 0   -- 1: its streams go on; 2: they end
) STRICT;
CREATE INDEX tokens_by_age ON tokens (expires);
CREATE INDEX tokens_of ON tokens (issuer, subject);

CREATE TABLE shut_out (
    person  TEXT NOT NULL,
    issuer  TEXT NOT NULL,
    subject TEXT NOT NULL,     -- '' for the name itself
    since   INTEGER NOT NULL,  -- Unix seconds
    streams INTEGER NOT NULL,  -- 1: they go on; 2: they end
    PRIMARY KEY (person, issuer, subject)
) STRICT, WITHOUT ROWID;
";

/// Requests for access that somebody has to approve.
const APPROVALS: &str = "
CREATE TABLE approvals (
    id          TEXT NOT NULL PRIMARY KEY,
    caller      TEXT NOT NULL,             -- a policy, or oidc: and a person
    device      TEXT NOT NULL,
    module      TEXT NOT NULL,             -- '' for the device itself
    target      TEXT NOT NULL,
    reason      TEXT,
    approvers   TEXT NOT NULL,             -- a JSON array
    lasts       INTEGER NOT NULL,          -- seconds
    waits_until INTEGER NOT NULL,          -- Unix seconds, as all times here
    asked       INTEGER NOT NULL,
    decided_by  TEXT,
    decided     INTEGER,
    until       INTEGER,                   -- NULL once it is decided: refused
    because     TEXT,
    told        INTEGER NOT NULL DEFAULT 0 -- 1: that it was asked; 2: what was decided
) STRICT;
CREATE INDEX approvals_of ON approvals (caller, device, module, target, asked);
CREATE INDEX approvals_by_age ON approvals (asked);
CREATE INDEX approvals_untold ON approvals (asked, id) WHERE told = 0 OR (told = 1 AND decided IS NOT NULL);

CREATE TRIGGER identity_deleted_approvals AFTER DELETE ON identities BEGIN
    DELETE FROM approvals WHERE device = OLD.device AND module = OLD.module;
END;
";

/// What was changed, until the hub's audit log has it. Made by triggers, in the transaction of the
/// change, whatever program it is by. Without a hub that takes them the oldest go.
const NOTES: &str = "
CREATE TABLE notes (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    time      TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    operation TEXT NOT NULL,
    device    TEXT,
    module    TEXT,                      -- '' for the device itself
    policy    TEXT,
    what      TEXT NOT NULL DEFAULT '',  -- no values: some are secrets
    actor     TEXT                       -- JSON
) STRICT;
CREATE TRIGGER note_added AFTER INSERT ON notes BEGIN
    DELETE FROM notes WHERE id <= NEW.id - 100000;
END;

CREATE TRIGGER identity_created_note AFTER INSERT ON identities BEGIN
    INSERT INTO notes (operation, device, module, what)
    VALUES ('create', NEW.device, NEW.module, NEW.authentication);
END;
CREATE TRIGGER identity_deleted_note AFTER DELETE ON identities BEGIN
    INSERT INTO notes (operation, device, module) VALUES ('delete', OLD.device, OLD.module);
END;
CREATE TRIGGER identity_key_note AFTER UPDATE ON identities
WHEN OLD.authentication <> NEW.authentication
    OR OLD.primary_credential IS NOT NEW.primary_credential
    OR OLD.secondary_credential IS NOT NEW.secondary_credential
BEGIN
    INSERT INTO notes (operation, device, module, what) VALUES (
        'KeyChanged', NEW.device, NEW.module,
        NEW.authentication ||
        CASE WHEN OLD.primary_credential IS NOT NEW.primary_credential
            THEN ' primary' ELSE '' END ||
        CASE WHEN OLD.secondary_credential IS NOT NEW.secondary_credential
            THEN ' secondary' ELSE '' END
    );
END;
CREATE TRIGGER identity_status_note AFTER UPDATE ON identities
WHEN OLD.enabled <> NEW.enabled BEGIN
    INSERT INTO notes (operation, device, module, what) VALUES (
        'update', NEW.device, NEW.module,
        CASE WHEN NEW.enabled THEN 'enabled' ELSE 'disabled' END
    );
END;
CREATE TRIGGER identity_scope_note AFTER UPDATE ON identities
WHEN OLD.iot_edge <> NEW.iot_edge OR OLD.parent_scopes <> NEW.parent_scopes
    OR OLD.device_scope IS NOT NEW.device_scope OR OLD.managed_by IS NOT NEW.managed_by
BEGIN
    INSERT INTO notes (operation, device, module, what)
    VALUES ('update', NEW.device, NEW.module, 'scope');
END;

CREATE TRIGGER policy_created_note AFTER INSERT ON policies BEGIN
    INSERT INTO notes (operation, policy, what) VALUES (
        'PolicyCreated', NEW.name,
        trim(CASE WHEN NEW.registry_read THEN 'RegistryRead ' ELSE '' END ||
            CASE WHEN NEW.registry_write THEN 'RegistryReadWrite ' ELSE '' END ||
            CASE WHEN NEW.service_connect THEN 'ServiceConnect ' ELSE '' END ||
            CASE WHEN NEW.device_connect THEN 'DeviceConnect' ELSE '' END)
    );
END;
CREATE TRIGGER policy_deleted_note AFTER DELETE ON policies BEGIN
    INSERT INTO notes (operation, policy) VALUES ('PolicyDeleted', OLD.name);
END;
CREATE TRIGGER policy_key_note AFTER UPDATE ON policies
WHEN OLD.primary_key <> NEW.primary_key OR OLD.secondary_key <> NEW.secondary_key BEGIN
    INSERT INTO notes (operation, policy, what) VALUES (
        'KeyChanged', NEW.name,
        trim(CASE WHEN OLD.primary_key <> NEW.primary_key THEN 'primary ' ELSE '' END ||
            CASE WHEN OLD.secondary_key <> NEW.secondary_key THEN 'secondary' ELSE '' END)
    );
END;

CREATE TRIGGER token_revoked_note AFTER UPDATE ON tokens
WHEN OLD.revoked = 0 AND NEW.revoked <> 0 BEGIN
    INSERT INTO notes (operation, policy, what) VALUES ('TokenRevoked', NEW.policy, NEW.id);
END;
CREATE TRIGGER shut_out_note AFTER INSERT ON shut_out BEGIN
    INSERT INTO notes (operation, what) VALUES ('PersonShutOut', NEW.person);
END;
CREATE TRIGGER let_in_note AFTER DELETE ON shut_out BEGIN
    INSERT INTO notes (operation, what) VALUES ('PersonLetIn', OLD.person);
END;
CREATE TRIGGER authority_added_note AFTER INSERT ON authorities BEGIN
    INSERT INTO notes (operation, what) VALUES ('AuthorityAdded', NEW.name);
END;
CREATE TRIGGER authority_crl_note AFTER UPDATE ON authorities
WHEN OLD.crl_file IS NOT NEW.crl_file BEGIN
    INSERT INTO notes (operation, what) VALUES ('AuthorityCrlChanged', NEW.name);
END;
CREATE TRIGGER authority_removed_note AFTER DELETE ON authorities BEGIN
    INSERT INTO notes (operation, what) VALUES ('AuthorityRemoved', OLD.name);
END;

CREATE TRIGGER enrolment_created_note AFTER INSERT ON enrolments BEGIN
    INSERT INTO notes (operation, device, module, policy)
    VALUES ('EnrolmentCodeCreated', NEW.device, '', NEW.policy);
END;
CREATE TRIGGER enrolment_revoked_note AFTER DELETE ON enrolments
WHEN OLD.used_by IS NULL AND OLD.expires > CAST(strftime('%s', 'now') AS INTEGER) BEGIN
    INSERT INTO notes (operation, device, module, policy)
    VALUES ('EnrolmentCodeRemoved', OLD.device, '', OLD.policy);
END;
";

/// Who has asked for access, as the identity provider says, and on whose word it was granted: the names
/// and groups of the rule by which the approver could. NULL: by the hub's folder.
const APPROVERS: &str = "
ALTER TABLE approvals ADD COLUMN most INTEGER NOT NULL DEFAULT 0; -- seconds, by the rule
ALTER TABLE approvals ADD COLUMN issuer TEXT;
ALTER TABLE approvals ADD COLUMN subject TEXT;
ALTER TABLE approvals ADD COLUMN groups TEXT;                     -- a JSON array
ALTER TABLE approvals ADD COLUMN through TEXT;                    -- a JSON array
UPDATE approvals SET most = lasts;
UPDATE approvals SET through = approvers WHERE decided_by LIKE 'oidc:%';
";

/// Each request for access and each decision is noted for the audit log, and is a message to the
/// webhook until it has that: a copy of the request as it was. Without a hub that takes them the oldest
/// go.
const APPROVAL_NEWS: &str = "
CREATE TABLE approval_news (
    news        INTEGER PRIMARY KEY AUTOINCREMENT,
    attempts    INTEGER NOT NULL DEFAULT 0,
    due         INTEGER NOT NULL DEFAULT 0, -- Unix seconds
    id          TEXT NOT NULL,              -- the rest is as in approvals
    caller      TEXT NOT NULL,
    device      TEXT NOT NULL,
    module      TEXT NOT NULL,
    target      TEXT NOT NULL,
    reason      TEXT,
    approvers   TEXT NOT NULL,
    lasts       INTEGER NOT NULL,
    waits_until INTEGER NOT NULL,
    asked       INTEGER NOT NULL,
    decided_by  TEXT,
    decided     INTEGER,
    until       INTEGER,
    because     TEXT,
    most        INTEGER NOT NULL,
    issuer      TEXT,
    subject     TEXT,
    groups      TEXT,
    through     TEXT
) STRICT;
CREATE INDEX approval_news_of ON approval_news (id, news);
CREATE TRIGGER approval_news_added AFTER INSERT ON approval_news BEGIN
    DELETE FROM approval_news WHERE news <= NEW.news - 10000;
END;

CREATE TRIGGER approval_asked_note AFTER INSERT ON approvals BEGIN
    INSERT INTO notes (operation, device, module, policy, what) VALUES (
        'ApprovalRequested', NEW.device, NEW.module, NEW.caller,
        json_object('id', NEW.id, 'target', NEW.target)
    );
    INSERT INTO approval_news (id, caller, device, module, target, reason, approvers, lasts, waits_until, asked,
        decided_by, decided, until, because, most, issuer, subject, groups, through)
    VALUES (NEW.id, NEW.caller, NEW.device, NEW.module, NEW.target, NEW.reason, NEW.approvers,
        NEW.lasts, NEW.waits_until, NEW.asked, NEW.decided_by, NEW.decided, NEW.until,
        NEW.because, NEW.most, NEW.issuer, NEW.subject, NEW.groups, NEW.through);
END;
CREATE TRIGGER approval_decided_note AFTER UPDATE OF decided ON approvals
WHEN NEW.decided IS NOT NULL BEGIN
    INSERT INTO notes (operation, device, module, policy, what) VALUES (
        CASE WHEN NEW.until IS NULL THEN 'ApprovalRefused' ELSE 'ApprovalGranted' END,
        NEW.device, NEW.module, NEW.caller,
        json_object('id', NEW.id, 'target', NEW.target, 'by', NEW.decided_by)
    );
    INSERT INTO approval_news (id, caller, device, module, target, reason, approvers, lasts, waits_until, asked,
        decided_by, decided, until, because, most, issuer, subject, groups, through)
    VALUES (NEW.id, NEW.caller, NEW.device, NEW.module, NEW.target, NEW.reason, NEW.approvers,
        NEW.lasts, NEW.waits_until, NEW.asked, NEW.decided_by, NEW.decided, NEW.until,
        NEW.because, NEW.most, NEW.issuer, NEW.subject, NEW.groups, NEW.through);
END;

INSERT INTO notes (operation, device, module, policy, what)
    SELECT 'ApprovalRequested', device, module, caller, json_object('id', id, 'target', target)
    FROM approvals WHERE told = 0 ORDER BY asked;
INSERT INTO notes (operation, device, module, policy, what)
    SELECT CASE WHEN until IS NULL THEN 'ApprovalRefused' ELSE 'ApprovalGranted' END,
        device, module, caller, json_object('id', id, 'target', target, 'by', decided_by)
    FROM approvals WHERE told < 2 AND decided IS NOT NULL ORDER BY decided;
DROP INDEX approvals_untold;
ALTER TABLE approvals DROP COLUMN told;
";

/// Policies that read twins and do nothing else; and the notes of approvals say why access is asked
/// for, how long, until when it is granted, and why it is refused.
const TWIN_READ: &str = "
ALTER TABLE policies ADD COLUMN twin_read INTEGER NOT NULL DEFAULT 0;
DROP TRIGGER policy_created_note;
CREATE TRIGGER policy_created_note AFTER INSERT ON policies BEGIN
    INSERT INTO notes (operation, policy, what) VALUES (
        'PolicyCreated', NEW.name,
        trim(CASE WHEN NEW.registry_read THEN 'RegistryRead ' ELSE '' END ||
            CASE WHEN NEW.registry_write THEN 'RegistryReadWrite ' ELSE '' END ||
            CASE WHEN NEW.service_connect THEN 'ServiceConnect ' ELSE '' END ||
            CASE WHEN NEW.device_connect THEN 'DeviceConnect ' ELSE '' END ||
            CASE WHEN NEW.twin_read THEN 'TwinRead' ELSE '' END)
    );
END;
DROP TRIGGER approval_asked_note;
CREATE TRIGGER approval_asked_note AFTER INSERT ON approvals BEGIN
    INSERT INTO notes (operation, device, module, policy, what) VALUES (
        'ApprovalRequested', NEW.device, NEW.module, NEW.caller,
        json_object('id', NEW.id, 'target', NEW.target, 'reason', NEW.reason, 'seconds', NEW.lasts)
    );
    INSERT INTO approval_news (id, caller, device, module, target, reason, approvers, lasts, waits_until, asked,
        decided_by, decided, until, because, most, issuer, subject, groups, through)
    VALUES (NEW.id, NEW.caller, NEW.device, NEW.module, NEW.target, NEW.reason, NEW.approvers,
        NEW.lasts, NEW.waits_until, NEW.asked, NEW.decided_by, NEW.decided, NEW.until,
        NEW.because, NEW.most, NEW.issuer, NEW.subject, NEW.groups, NEW.through);
END;
DROP TRIGGER approval_decided_note;
CREATE TRIGGER approval_decided_note AFTER UPDATE OF decided ON approvals
WHEN NEW.decided IS NOT NULL BEGIN
    INSERT INTO notes (operation, device, module, policy, what) VALUES (
        CASE WHEN NEW.until IS NULL THEN 'ApprovalRefused' ELSE 'ApprovalGranted' END,
        NEW.device, NEW.module, NEW.caller,
        json_object('id', NEW.id, 'target', NEW.target, 'by', NEW.decided_by,
            'until', NEW.until, 'because', NEW.because)
    );
    INSERT INTO approval_news (id, caller, device, module, target, reason, approvers, lasts, waits_until, asked,
        decided_by, decided, until, because, most, issuer, subject, groups, through)
    VALUES (NEW.id, NEW.caller, NEW.device, NEW.module, NEW.target, NEW.reason, NEW.approvers,
        NEW.lasts, NEW.waits_until, NEW.asked, NEW.decided_by, NEW.decided, NEW.until,
        NEW.because, NEW.most, NEW.issuer, NEW.subject, NEW.groups, NEW.through);
END;
";
