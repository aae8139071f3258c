//! Rows in the binary form of `COPY … FROM STDIN`, built straight into one buffer.
//!
//! COPY writes whole pages at a time and skips the executor; for append-only batches it costs Postgres about half of
//! `INSERT … SELECT unnest`. It has no ON CONFLICT: the caller must know that the rows are new, or be ready to retry.

use sqlx::PgConnection;
use uuid::Uuid;

use super::types::PgTime;

/// Rows being built. Each `row` is followed by exactly its number of fields, in the order of the column list.
pub(crate) struct Rows {
    buffer: Vec<u8>,
}

impl Rows {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes + 32);
        buffer.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
        buffer.extend_from_slice(&[0; 8]); // no flags, no header extension
        Self { buffer }
    }

    pub(crate) fn row(&mut self, fields: i16) -> &mut Self {
        self.buffer.extend_from_slice(&fields.to_be_bytes());
        self
    }

    pub(crate) fn uuid(&mut self, value: Uuid) -> &mut Self {
        self.field(value.as_bytes())
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.field(value.as_bytes())
    }

    pub(crate) fn bigint(&mut self, value: i64) -> &mut Self {
        self.field(&value.to_be_bytes())
    }

    pub(crate) fn time(&mut self, value: PgTime) -> &mut Self {
        self.field(&value.wire().to_be_bytes())
    }

    /// `write` appends the JSON text.
    pub(crate) fn jsonb(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.push(1); // version of jsonb's binary form
        write(&mut self.buffer);
        let length = length(self.buffer.len() - start - 4);
        self.buffer[start..start + 4].copy_from_slice(&length);
        self
    }

    fn field(&mut self, bytes: &[u8]) -> &mut Self {
        self.buffer.extend_from_slice(&length(bytes.len()));
        self.buffer.extend_from_slice(bytes);
        self
    }

    /// Sends the rows. `statement` is `copy table (columns) from stdin (format binary)`.
    pub(crate) async fn copy_into(
        mut self,
        db: &mut PgConnection,
        statement: &str,
    ) -> Result<u64, sqlx::Error> {
        self.buffer.extend_from_slice(&(-1_i16).to_be_bytes());
        let mut copy = db.copy_in_raw(statement).await?;
        copy.send(self.buffer).await?;
        copy.finish().await
    }
}

fn length(bytes: usize) -> [u8; 4] {
    i32::try_from(bytes).expect("a field is part of a batch, whose size is bounded").to_be_bytes()
}
