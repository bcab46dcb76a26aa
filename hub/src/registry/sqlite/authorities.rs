//! CAs of devices in their table.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{OptionalExtension as _, Row, params};
use rustls::pki_types::CertificateDer;

use super::rows::{column, damaged};
use super::{Result, SqliteRegistry, changes};
use crate::registry::{Authorities, Authority, AuthorityAdded, Owner};

#[async_trait]
impl Authorities for SqliteRegistry {
    async fn authorities(&self) -> Result<Vec<Authority>> {
        let damaged = Arc::clone(&self.damaged);
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT name, certificate, digest, crl_file, added FROM authorities ORDER BY name",
            )?;
            let rows = statement.query_map([], |row| Ok(row_of(row)))?;
            damaged.leave_out(rows)
        })
        .await
    }

    async fn add_authority(&self, authority: Authority) -> Result<AuthorityAdded> {
        self.write(move |connection| {
            let known = connection
                .prepare_cached("SELECT name FROM authorities WHERE digest = ?1")?
                .query_row([authority.digest], |row| row.get(0))
                .optional()?;
            if let Some(name) = known {
                return Ok(AuthorityAdded::Known(name));
            }
            let rows = connection
                .prepare_cached(
                    "INSERT INTO authorities (name, certificate, digest, crl_file, added) \
                     VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
                )?
                .execute(params![
                    authority.name,
                    authority.certificate.as_ref(),
                    authority.digest,
                    authority.crl_file.as_deref().map(text),
                    column(authority.added),
                ])?;
            Ok(match changes::noted(connection, rows)? {
                true => AuthorityAdded::Added,
                false => AuthorityAdded::NameTaken,
            })
        })
        .await
    }

    async fn set_authority_crl(&self, name: &str, crl_file: Option<PathBuf>) -> Result<bool> {
        let name = name.to_owned();
        self.write(move |connection| {
            let rows = connection
                .prepare_cached("UPDATE authorities SET crl_file = ?2 WHERE name = ?1")?
                .execute(params![name, crl_file.as_deref().map(text)])?;
            changes::noted(connection, rows)
        })
        .await
    }

    async fn remove_authority(&self, name: &str) -> Result<bool> {
        let name = name.to_owned();
        self.write(move |connection| {
            let rows = connection
                .prepare_cached("DELETE FROM authorities WHERE name = ?1")?
                .execute([name])?;
            changes::noted(connection, rows)
        })
        .await
    }
}

/// Only paths that are text are registered.
fn text(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

fn row_of(row: &Row<'_>) -> Result<Authority> {
    let name: String = row.get(0)?;
    let damaged = |what| damaged(Owner::Authority(name.clone()), what);
    let certificate: Vec<u8> = row.get(1).map_err(|_| damaged("the certificate"))?;
    let digest = row.get(2).map_err(|_| damaged("the digest"))?;
    let crl_file: Option<String> = row.get(3).map_err(|_| damaged("the CRL's file"))?;
    Ok(Authority {
        certificate: CertificateDer::from(certificate),
        digest,
        crl_file: crl_file.map(PathBuf::from),
        added: row.get::<_, i64>(4)?.unsigned_abs(),
        name,
    })
}
