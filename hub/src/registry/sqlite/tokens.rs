//! Issued tokens in their table, and who is shut out.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::rows::{column, damaged, key};
use super::{Result, SqliteRegistry, changes};
use crate::registry::{
    Holder, IssuedToken, IssuedTokens, Login, OpenStreams, Owner, ShutOut, TOKENS_PER_PERSON,
};

const SELECT: &str = "SELECT id, name, policy, issuer, subject, groups, key, created, expires, \
    revoked FROM tokens";

#[async_trait]
impl IssuedTokens for SqliteRegistry {
    async fn issue_token(&self, token: IssuedToken) -> Result<bool> {
        self.write(move |connection| issue(connection, &token))
            .await
    }

    async fn issued_token(&self, id: &str) -> Result<Option<IssuedToken>> {
        let id = id.to_owned();
        self.read(move |connection| {
            connection
                .prepare_cached(&format!("{SELECT} WHERE id = ?1"))?
                .query_row([id], |row| Ok(row_of(row)))
                .optional()?
                .transpose()
        })
        .await
    }

    async fn token_stands(&self, id: &str) -> Result<bool> {
        let id = id.to_owned();
        self.read(move |connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM tokens AS it WHERE id = ?1 AND revoked = 0 \
                     AND (it.subject IS NULL OR NOT EXISTS (SELECT 1 FROM shut_out AS gone \
                        WHERE (gone.person = it.name AND gone.subject = '') \
                        OR (gone.subject = it.subject AND gone.issuer = it.issuer))))",
                )?
                .query_row([id], |row| row.get(0))?)
        })
        .await
    }

    async fn issued_tokens(&self, now: u64) -> Result<Vec<IssuedToken>> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "{SELECT} WHERE expires > ?1 AND revoked = 0 ORDER BY created DESC, id"
            ))?;
            let rows = statement.query_map([column(now)], |row| Ok(row_of(row)))?;
            rows.map(|row| row?).collect()
        })
        .await
    }

    async fn revoke_token(&self, id: &str, streams: OpenStreams) -> Result<bool> {
        let id = id.to_owned();
        self.write(move |connection| {
            let rows = connection
                .prepare_cached("UPDATE tokens SET revoked = ?2 WHERE id = ?1")?
                .execute(params![id, number(streams)])?;
            if rows > 0 {
                changes::note_tokens(connection)?;
            }
            Ok(rows > 0)
        })
        .await
    }

    async fn shut_out(&self, person: &str, streams: OpenStreams, now: u64) -> Result<u64> {
        let person = person.to_owned();
        self.write(move |connection| shut_out(connection, &person, streams, now))
            .await
    }

    async fn let_in(&self, person: &str) -> Result<bool> {
        let person = person.to_owned();
        self.write(move |connection| {
            let rows = connection
                .prepare_cached("DELETE FROM shut_out WHERE person = ?1")?
                .execute([person])?;
            Ok(rows > 0)
        })
        .await
    }

    async fn shut_out_streams(&self, login: &Login) -> Result<Option<OpenStreams>> {
        let login = login.clone();
        self.read(move |connection| {
            // Who is out twice, by an earlier name and by this one, is out as the harder of both says.
            let number: Option<i64> = connection
                .prepare_cached(
                    "SELECT max(streams) FROM shut_out WHERE (person = ?1 AND subject = '') \
                     OR (subject = ?2 AND issuer = ?3)",
                )?
                .query_row(params![login.name, login.subject, login.issuer], |row| {
                    row.get(0)
                })?;
            Ok(number.and_then(streams))
        })
        .await
    }

    async fn shut_out_people(&self) -> Result<Vec<ShutOut>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT person, since, streams FROM shut_out WHERE subject = '' ORDER BY person",
            )?;
            let rows = statement.query_map([], |row| {
                Ok(ShutOut {
                    person: row.get(0)?,
                    since: row.get::<_, i64>(1)?.unsigned_abs(),
                    streams: streams(row.get(2)?).unwrap_or(OpenStreams::Keep),
                })
            })?;
            Ok(rows.collect::<std::result::Result<_, _>>()?)
        })
        .await
    }
}

fn issue(connection: &Connection, token: &IssuedToken) -> Result<bool> {
    connection
        .prepare_cached("DELETE FROM tokens WHERE expires <= ?1")?
        .execute([column(token.created)])?;
    let (policy, login) = match &token.holder {
        Holder::Named { policy, .. } => (Some(policy), None),
        Holder::Person(login) => (None, Some(login)),
    };
    if let Some(login) = login {
        let is_out: bool = connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM shut_out WHERE (person = ?1 AND subject = '') \
                 OR (subject = ?2 AND issuer = ?3))",
            )?
            .query_row(params![login.name, login.subject, login.issuer], |row| {
                row.get(0)
            })?;
        if is_out {
            return Ok(false);
        }
    }
    let groups = login.map(|login| serde_json::Value::from(login.groups.clone()).to_string());
    connection
        .prepare_cached(
            "INSERT INTO tokens (id, name, policy, issuer, subject, groups, key, created, expires) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            token.id,
            token.holder.name(),
            policy,
            login.map(|login| &login.issuer),
            login.map(|login| &login.subject),
            groups,
            token.key.to_base64().expose(),
            column(token.created),
            column(token.expires),
        ])?;
    if let Some(login) = login {
        connection
            .prepare_cached(
                "DELETE FROM tokens WHERE id IN (SELECT id FROM tokens WHERE issuer = ?1 AND \
                 subject = ?2 ORDER BY created DESC, rowid DESC LIMIT -1 OFFSET ?3)",
            )?
            .execute(params![login.issuer, login.subject, TOKENS_PER_PERSON])?;
    }
    Ok(true)
}

/// A person is known by name to whoever types it, and by subject to the provider: another name would
/// be no way back.
fn shut_out(connection: &Connection, person: &str, streams: OpenStreams, now: u64) -> Result<u64> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO shut_out (person, issuer, subject, since, streams) \
             SELECT DISTINCT name, issuer, subject, ?2, ?3 FROM tokens \
             WHERE name = ?1 AND subject IS NOT NULL \
             UNION ALL SELECT ?1, '', '', ?2, ?3",
        )?
        .execute(params![person, column(now), number(streams)])?;
    let rows = connection
        .prepare_cached(
            "UPDATE tokens SET revoked = ?3 WHERE subject IS NOT NULL AND expires > ?2 \
             AND revoked = 0 AND (name = ?1 OR (issuer, subject) IN \
                (SELECT issuer, subject FROM shut_out WHERE person = ?1 AND subject <> ''))",
        )?
        .execute(params![person, column(now), number(streams)])?;
    changes::note_tokens(connection)?;
    Ok(rows as u64)
}

fn number(streams: OpenStreams) -> i64 {
    match streams {
        OpenStreams::Keep => 1,
        OpenStreams::End => 2,
    }
}

fn streams(number: i64) -> Option<OpenStreams> {
    match number {
        0 => None,
        1 => Some(OpenStreams::Keep),
        _ => Some(OpenStreams::End),
    }
}

/// A row of [`SELECT`].
fn row_of(row: &Row<'_>) -> Result<IssuedToken> {
    let id: String = row.get(0)?;
    let name: String = row.get(1)?;
    let damaged = |what| damaged(Owner::Token(id.clone()), what);
    let holder = match row.get::<_, Option<String>>(2)? {
        Some(policy) => Holder::Named { name, policy },
        None => {
            let groups: Option<String> = row.get(5)?;
            let groups = groups.and_then(|text| serde_json::from_str(&text).ok());
            Holder::Person(Login {
                issuer: row.get(3)?,
                subject: row.get(4)?,
                name,
                groups: groups.ok_or_else(|| damaged("the groups"))?,
            })
        }
    };
    Ok(IssuedToken {
        key: key(row.get(6)?).ok_or_else(|| damaged("the key"))?,
        created: row.get::<_, i64>(7)?.unsigned_abs(),
        expires: row.get::<_, i64>(8)?.unsigned_abs(),
        revoked: streams(row.get(9)?),
        holder,
        id,
    })
}
