//! A question to Postgres as a part of the request that asks it (semantic conventions of database clients, 1.38): what was
//! asked and how it went, never a value.

use std::borrow::Cow;
use std::time::SystemTime;

use sqlx::PgPool;
use telemetry::traces::{KeyValue, Parent, Span, SpanKind};
use telemetry::{TraceContext, Tracer};

use super::postgres;

/// What went wrong, as long as there is no answer: whoever asked has left.
const CANCELLED: &str = "cancelled";

/// A select on its way. Recorded when it is dropped, so also when nobody waits for it any more; nothing if its request is
/// not recorded.
#[derive(Debug)]
pub(crate) struct Select(Option<Asked>);

#[derive(Debug)]
struct Asked {
    tracer: Tracer,
    request: TraceContext,
    database: String,
    table: &'static str,
    began: SystemTime,
    error: Option<Cow<'static, str>>,
    /// What Postgres calls the error.
    code: Option<String>,
}

impl Select {
    /// Rows of `table` are asked for, because of `request`.
    pub(crate) fn begin(
        tracer: &Tracer,
        request: &TraceContext,
        pool: &PgPool,
        table: &'static str,
    ) -> Self {
        Self(tracer.records(request).then(|| Asked {
            tracer: tracer.clone(),
            request: *request,
            database: pool.connect_options().get_database().unwrap_or_default().to_owned(),
            table,
            began: SystemTime::now(),
            error: Some(Cow::Borrowed(CANCELLED)),
            code: None,
        }))
    }

    /// Here is the answer.
    pub(crate) fn ended<T>(mut self, answer: &sqlx::Result<T>) {
        let Some(asked) = &mut self.0 else { return };
        asked.error = answer.as_ref().err().map(error_type);
        let refusal = answer.as_ref().err().and_then(sqlx::Error::as_database_error);
        asked.code = refusal.and_then(|error| error.code()).map(Cow::into_owned);
    }

    /// Here it is, and it is one.
    pub(crate) fn answered(mut self) {
        if let Some(asked) = &mut self.0 {
            asked.error = None;
        }
    }

    /// There is none, because of `why`.
    pub(crate) fn failed(mut self, why: &'static str) {
        if let Some(asked) = &mut self.0 {
            asked.error = Some(Cow::Borrowed(why));
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let summary = format!("SELECT {}", self.table);
        let times = (self.began, SystemTime::now());
        let (place, parent) = (self.request.child(), Parent::Here(self.request));
        let mut span = Span::new(place, parent, summary.clone(), SpanKind::Client, times);
        span.attributes = postgres(&self.database, "SELECT");
        span.attributes.extend([
            KeyValue::new("db.collection.name", self.table),
            KeyValue::new("db.query.summary", summary),
        ]);
        if let Some(error) = self.error.take() {
            let code = self.code.take();
            span.attributes.extend(code.map(|code| KeyValue::new("db.response.status_code", code)));
            span.attributes.push(KeyValue::new("error.type", error));
            span.error = Some(Cow::Borrowed("the projection did not answer"));
        }
        self.tracer.record(span);
    }
}

/// A kind of error, from a set that Postgres closes.
fn error_type(error: &sqlx::Error) -> Cow<'static, str> {
    match error {
        sqlx::Error::Database(refusal) => {
            refusal.code().map_or(Cow::Borrowed("_OTHER"), |code| Cow::Owned(code.into_owned()))
        }
        sqlx::Error::PoolTimedOut => Cow::Borrowed("pool_timed_out"),
        sqlx::Error::Io(_) => Cow::Borrowed("io"),
        _ => Cow::Borrowed("_OTHER"),
    }
}
