//! Messages to devices in their table.

use async_trait::async_trait;
use common::identity::{DeviceId, DeviceIdentity};
use rusqlite::{Connection, params};

use super::rows::column;
use super::{Result, SqliteRegistry};
use crate::limits;
use crate::registry::{Message, Messages, NewMessage, RegistryError};

#[async_trait]
impl Messages for SqliteRegistry {
    async fn send_message(&self, device: &DeviceId, message: NewMessage, now: u64) -> Result<()> {
        let device = device.clone();
        self.write(move |connection| send(connection, device, &message, now))
            .await
    }

    async fn deliver_messages(
        &self,
        device: &DeviceId,
        after: u64,
        limit: usize,
        now: u64,
    ) -> Result<Vec<Message>> {
        let of = device.clone();
        // Most sessions begin without a message: that costs no write.
        let is_empty = self
            .read(move |connection| {
                Ok(connection
                    .prepare_cached("SELECT NOT EXISTS (SELECT 1 FROM messages WHERE device = ?1)")?
                    .query_row([of.as_str()], |row| row.get(0))?)
            })
            .await?;
        if is_empty {
            return Ok(Vec::new());
        }
        let device = device.clone();
        self.write(move |connection| deliver(connection, &device, after, limit, now))
            .await
    }

    async fn complete_messages(&self, device: &DeviceId, sequences: Vec<u64>) -> Result<()> {
        let device = device.clone();
        self.write(move |connection| {
            let mut delete = connection
                .prepare_cached("DELETE FROM messages WHERE device = ?1 AND sequence = ?2")?;
            for sequence in sequences {
                delete.execute(params![device.as_str(), column(sequence)])?;
            }
            Ok(())
        })
        .await
    }

    async fn purge_messages(&self, device: &DeviceId) -> Result<u64> {
        let device = device.clone();
        self.write(move |connection| {
            must_exist(connection, &device)?;
            let purged = connection
                .prepare_cached("DELETE FROM messages WHERE device = ?1")?
                .execute([device.as_str()])?;
            Ok(purged as u64)
        })
        .await
    }
}

fn must_exist(connection: &Connection, device: &DeviceId) -> Result<()> {
    let exists: bool = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM identities WHERE device = ?1 AND module = '')",
        )?
        .query_row([device.as_str()], |row| row.get(0))?;
    if exists {
        return Ok(());
    }
    let id = DeviceIdentity::of_device(device.clone());
    Err(RegistryError::NotFound(id))
}

fn send(connection: &Connection, device: DeviceId, message: &NewMessage, now: u64) -> Result<()> {
    must_exist(connection, &device)?;
    forget_expired(connection, &device, now)?;
    let waiting: i64 = connection
        .prepare_cached("SELECT count(*) FROM messages WHERE device = ?1")?
        .query_row([device.as_str()], |row| row.get(0))?;
    if waiting.unsigned_abs() >= limits::MESSAGES_WAITING {
        return Err(RegistryError::QueueFull(device));
    }
    connection
        .prepare_cached(
            "INSERT INTO messages (device, deliveries, expires, properties, payload) \
             VALUES (?1, 0, ?2, ?3, ?4)",
        )?
        .execute(params![
            device.as_str(),
            column(message.expires),
            message.properties,
            &message.payload[..],
        ])?;
    Ok(())
}

fn forget_expired(connection: &Connection, device: &DeviceId, now: u64) -> Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM messages WHERE device = ?1 AND (expires <= ?2 OR deliveries >= ?3)",
        )?
        .execute(params![
            device.as_str(),
            column(now),
            column(limits::MESSAGE_DELIVERIES)
        ])?;
    Ok(())
}

fn deliver(
    connection: &Connection,
    device: &DeviceId,
    after: u64,
    limit: usize,
    now: u64,
) -> Result<Vec<Message>> {
    forget_expired(connection, device, now)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut select = connection.prepare_cached(
        "SELECT sequence, deliveries, properties, payload FROM messages \
         WHERE device = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
    )?;
    let rows = select.query_map(params![device.as_str(), column(after), limit], |row| {
        Ok(Message {
            sequence: row.get::<_, i64>(0)?.unsigned_abs(),
            deliveries: row.get::<_, i64>(1)?.unsigned_abs(),
            properties: row.get(2)?,
            payload: row.get::<_, Vec<u8>>(3)?.into(),
        })
    })?;
    let messages = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut count = connection
        .prepare_cached("UPDATE messages SET deliveries = deliveries + 1 WHERE sequence = ?1")?;
    for message in &messages {
        count.execute([column(message.sequence)])?;
    }
    Ok(messages)
}
