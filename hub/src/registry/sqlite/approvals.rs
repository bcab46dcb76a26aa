//! Requests for access in their table.

use std::sync::Arc;

use async_trait::async_trait;
use common::identity::{DeviceIdentity, StreamName};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::rows::{column, damaged, id};
use super::{Result, SqliteRegistry, module_column};
use crate::registry::{
    ApprovalAsk, ApprovalNews, ApprovalOutcome, ApprovalRequest, ApprovalState, ApprovalVerdict,
    Approvals, Decider, KEPT, Login, Owner, REFUSAL_STANDS, WAITING_PER_CALLER,
};

const COLUMNS: &str = "id, caller, device, module, target, reason, approvers, lasts, waits_until, \
    asked, decided_by, decided, until, because, most, issuer, subject, groups, through";

/// A request that waits for a few seconds less is not written again.
const SOON: u64 = 4;
/// What a person's name stands behind in the caller's.
const OIDC: &str = "oidc:";

#[async_trait]
impl Approvals for SqliteRegistry {
    async fn ask_approval(
        &self,
        ask: ApprovalAsk,
        is_explicit: bool,
        now: u64,
    ) -> Result<ApprovalRequest> {
        self.write(move |connection| ask_once(connection, ask, is_explicit, now))
            .await
    }

    async fn approval(&self, id: &str) -> Result<Option<ApprovalRequest>> {
        let id = id.to_owned();
        self.read(move |connection| find(connection, &id)).await
    }

    async fn approvals(&self, now: u64, all: bool) -> Result<Vec<ApprovalRequest>> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM approvals WHERE ?2 OR (decided IS NULL AND waits_until > ?1) OR until > ?1 \
                 ORDER BY asked DESC, id LIMIT 1000"
            ))?;
            let rows = statement.query_map(params![column(now), all], |row| Ok(row_of(row)))?;
            rows.map(|row| row?).collect()
        })
        .await
    }

    async fn decide_approval(
        &self,
        id: &str,
        verdict: ApprovalVerdict,
        by: Decider,
        now: u64,
    ) -> Result<ApprovalOutcome> {
        let id = id.to_owned();
        self.write(move |connection| decide(connection, &id, verdict, by, now))
            .await
    }

    async fn taken_back(&self, mut ids: Vec<Arc<str>>) -> Result<Vec<Arc<str>>> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM approvals WHERE id = ?1 AND until IS NOT NULL)",
            )?;
            let mut is_granted = |id: &str| statement.query_row([id], |row| row.get::<_, bool>(0));
            let mut taken_back = Vec::new();
            for id in ids.drain(..) {
                if !is_granted(&id)? {
                    taken_back.push(id);
                }
            }
            Ok(taken_back)
        })
        .await
    }

    async fn approval_news(&self, now: u64, most: u32) -> Result<Vec<ApprovalNews>> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, news, attempts FROM approval_news AS this WHERE due <= ?1 \
                 AND NOT EXISTS (SELECT 1 FROM approval_news AS earlier \
                                 WHERE earlier.id = this.id AND earlier.news < this.news) \
                 ORDER BY due, news LIMIT ?2"
            ))?;
            let rows = statement.query_map(params![column(now), most], |row| {
                let (id, attempts): (i64, u32) = (row.get(19)?, row.get(20)?);
                Ok(row_of(row).map(|request| ApprovalNews {
                    id: id.unsigned_abs(),
                    request,
                    attempts,
                }))
            })?;
            rows.map(|row| row?).collect()
        })
        .await
    }

    async fn postpone_approval_news(&self, id: u64, due: u64) -> Result<()> {
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE approval_news SET attempts = attempts + 1, due = ?2 WHERE news = ?1",
                )?
                .execute([column(id), column(due)])?;
            Ok(())
        })
        .await
    }

    async fn forget_approval_news(&self, id: Option<u64>) -> Result<()> {
        let are_there = self.read(|connection| {
            Ok(connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM approval_news)")?
                .query_row([], |row| row.get::<_, bool>(0))?)
        });
        // Mostly there are none, and nothing is written.
        if !are_there.await? {
            return Ok(());
        }
        self.write(move |connection| {
            connection
                .prepare_cached("DELETE FROM approval_news WHERE ?1 IS NULL OR news = ?1")?
                .execute([id.map(column)])?;
            Ok(())
        })
        .await
    }
}

fn decide(
    connection: &Connection,
    id: &str,
    verdict: ApprovalVerdict,
    by: Decider,
    now: u64,
) -> Result<ApprovalOutcome> {
    let Some(mut request) = find(connection, id)? else {
        return Ok(ApprovalOutcome::Unknown);
    };
    let is_refusal = matches!(verdict, ApprovalVerdict::Refused(_));
    let is_decided = request.state != ApprovalState::Waiting;
    let is_open = request.waits(now) || (is_decided && is_refusal);
    if !is_open {
        return Ok(ApprovalOutcome::Closed(request));
    }
    let (until, because) = match &verdict {
        ApprovalVerdict::Granted(until) => (Some(column(*until)), None),
        ApprovalVerdict::Refused(because) => (None, because.as_ref()),
    };
    connection
        .prepare_cached(
            "UPDATE approvals SET decided_by = ?2, decided = ?3, until = ?4, because = ?5, \
             through = ?6 WHERE id = ?1",
        )?
        .execute(params![
            id,
            by.name,
            column(now),
            until,
            because,
            by.through.as_deref().map(list),
        ])?;
    request.state = ApprovalState::Decided {
        by,
        at: now,
        verdict,
    };
    Ok(ApprovalOutcome::Decided(request))
}

fn ask_once(
    connection: &Connection,
    ask: ApprovalAsk,
    is_explicit: bool,
    now: u64,
) -> Result<ApprovalRequest> {
    let found = with_say(connection, &ask, now)?;
    // Some seconds go by between two requests of the same time.
    let least = match is_explicit {
        true => now.saturating_add(ask.lasts).saturating_sub(60),
        false => now,
    };
    let granted = found
        .iter()
        .filter_map(|request| {
            let until = request.granted_under(&ask.by, ask.most, now)?;
            Some((until, request))
        })
        .max_by_key(|(until, _)| *until);
    if let Some((until, request)) = granted
        && until >= least
    {
        return Ok(request.clone());
    }
    if let Some(waiting) = found.iter().find(|request| request.waits(now)) {
        return wait_on(connection, waiting.clone(), ask);
    }
    let refused = found.iter().find(|request| request.was_refused());
    match refused {
        Some(request) if !is_explicit => Ok(request.clone()),
        _ => insert(connection, ask, now),
    }
}

/// The requests of this caller for this target that have a say: those that are granted, wait, or were
/// refused a moment ago; the newest first.
fn with_say(connection: &Connection, ask: &ApprovalAsk, now: u64) -> Result<Vec<ApprovalRequest>> {
    // A name can be given to somebody else, a subject cannot.
    let [issuer, subject, _] = person_columns(ask);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM approvals WHERE caller = ?1 AND device = ?2 AND module = ?3 AND target = ?4 \
         AND issuer IS ?7 AND subject IS ?8 \
         AND (until > ?5 OR (decided IS NULL AND waits_until > ?5) \
              OR (until IS NULL AND decided > ?6)) \
         ORDER BY asked DESC, rowid DESC"
    ))?;
    let rows = statement.query_map(
        params![
            ask.caller,
            ask.identity.device.as_str(),
            module_column(&ask.identity),
            ask.target.as_str(),
            column(now),
            column(now.saturating_sub(REFUSAL_STANDS)),
            issuer,
            subject,
        ],
        |row| Ok(row_of(row)),
    )?;
    rows.map(|row| row?).collect()
}

/// It is asked for again: it waits on.
fn wait_on(
    connection: &Connection,
    mut found: ApprovalRequest,
    ask: ApprovalAsk,
) -> Result<ApprovalRequest> {
    // Many connections may wait for one request: not each of them is written down.
    let is_news = found.ask.waits_until.saturating_add(SOON) < ask.waits_until
        || found.ask.by != ask.by
        || found.ask.lasts > ask.lasts
        || found.ask.most != ask.most
        || found.ask.person != ask.person
        || (ask.reason.is_some() && found.ask.reason != ask.reason);
    if !is_news {
        return Ok(found);
    }
    found.ask.waits_until = found.ask.waits_until.max(ask.waits_until);
    found.ask.by = ask.by;
    found.ask.lasts = found.ask.lasts.min(ask.lasts);
    found.ask.most = ask.most;
    found.ask.person = ask.person;
    found.ask.reason = ask.reason.or(found.ask.reason);
    let [issuer, subject, groups] = person_columns(&found.ask);
    connection
        .prepare_cached(
            "UPDATE approvals SET waits_until = ?2, approvers = ?3, lasts = ?4, reason = ?5, \
             most = ?6, issuer = ?7, subject = ?8, groups = ?9 WHERE id = ?1",
        )?
        .execute(params![
            found.id,
            column(found.ask.waits_until),
            list(&found.ask.by),
            column(found.ask.lasts),
            found.ask.reason,
            column(found.ask.most),
            issuer,
            subject,
            groups,
        ])?;
    Ok(found)
}

fn insert(connection: &Connection, ask: ApprovalAsk, now: u64) -> Result<ApprovalRequest> {
    connection
        .prepare_cached("DELETE FROM approvals WHERE asked <= ?1 AND coalesce(until, 0) <= ?2")?
        .execute(params![column(now.saturating_sub(KEPT)), column(now)])?;
    connection
        .prepare_cached(
            "DELETE FROM approvals WHERE id IN (SELECT id FROM approvals WHERE caller = ?1 \
             AND decided IS NULL ORDER BY asked DESC, rowid DESC LIMIT -1 OFFSET ?2)",
        )?
        .execute(params![ask.caller, WAITING_PER_CALLER - 1])?;
    // Short, for people; 50 bits are not guessed twice, and a name alone decides nothing.
    let random = u64::from_be_bytes(common::random::bytes());
    let id: String = (0..10)
        .map(|at| {
            let letters = b"abcdefghjkmnpqrstuvwxyz234567892";
            let index = usize::try_from(random >> (at * 5) & 31).unwrap_or(0);
            char::from(letters.get(index).copied().unwrap_or(b'a'))
        })
        .collect();
    let [issuer, subject, groups] = person_columns(&ask);
    connection
        .prepare_cached(
            "INSERT INTO approvals (id, caller, device, module, target, reason, approvers, lasts, \
             waits_until, asked, most, issuer, subject, groups) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            id,
            ask.caller,
            ask.identity.device.as_str(),
            module_column(&ask.identity),
            ask.target.as_str(),
            ask.reason,
            list(&ask.by),
            column(ask.lasts),
            column(ask.waits_until),
            column(now),
            column(ask.most),
            issuer,
            subject,
            groups,
        ])?;
    Ok(ApprovalRequest {
        id,
        ask,
        asked: now,
        state: ApprovalState::Waiting,
    })
}

/// Issuer, subject and groups of whoever asks, if that is a person.
fn person_columns(ask: &ApprovalAsk) -> [Option<String>; 3] {
    let person = ask.person.as_ref();
    [
        person.map(|person| person.issuer.clone()),
        person.map(|person| person.subject.clone()),
        person.map(|person| list(&person.groups)),
    ]
}

fn list(names: &[String]) -> String {
    serde_json::Value::from(names.to_vec()).to_string()
}

fn find(connection: &Connection, id: &str) -> Result<Option<ApprovalRequest>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM approvals WHERE id = ?1"))?
        .query_row([id], |row| Ok(row_of(row)))
        .optional()?
        .transpose()
}

/// A row of [`COLUMNS`].
fn row_of(row: &Row<'_>) -> Result<ApprovalRequest> {
    let name: String = row.get(0)?;
    let damaged = |what| damaged(Owner::Approval(name.clone()), what);
    let number = |index| -> Result<u64> { Ok(row.get::<_, i64>(index)?.unsigned_abs()) };
    let identity: DeviceIdentity = id(&row.get::<_, String>(2)?, &row.get::<_, String>(3)?)?;
    let target = StreamName::parse(&row.get::<_, String>(4)?).map_err(|_| damaged("the target"))?;
    let by = serde_json::from_str(&row.get::<_, String>(6)?);
    let caller: String = row.get(1)?;
    let person = match (row.get(15)?, row.get(16)?) {
        (Some(issuer), Some(subject)) => {
            let groups: Option<String> = row.get(17)?;
            let groups = groups.and_then(|text| serde_json::from_str(&text).ok());
            Some(Login {
                issuer,
                subject,
                name: caller.strip_prefix(OIDC).unwrap_or(&caller).to_owned(),
                groups: groups.ok_or_else(|| damaged("the groups"))?,
            })
        }
        _ => None,
    };
    let through = match row.get::<_, Option<String>>(18)? {
        Some(text) => serde_json::from_str(&text).map_err(|_| damaged("the approvers"))?,
        None => None,
    };
    let state = match row.get::<_, Option<i64>>(11)? {
        None => ApprovalState::Waiting,
        Some(at) => ApprovalState::Decided {
            by: Decider {
                name: row.get::<_, Option<String>>(10)?.unwrap_or_default(),
                through,
            },
            at: at.unsigned_abs(),
            verdict: match row.get::<_, Option<i64>>(12)? {
                Some(until) => ApprovalVerdict::Granted(until.unsigned_abs()),
                None => ApprovalVerdict::Refused(row.get(13)?),
            },
        },
    };
    Ok(ApprovalRequest {
        ask: ApprovalAsk {
            caller,
            person,
            identity,
            target,
            reason: row.get(5)?,
            by: by.map_err(|_| damaged("the approvers"))?,
            lasts: number(7)?,
            most: number(14)?,
            waits_until: number(8)?,
        },
        asked: number(9)?,
        state,
        id: name,
    })
}
