//! The requests that are made here, each with the versions that are spoken, on one connection to one broker.
//!
//! Promises that every answer is waited for with a limit in time and size. After any error the connection must not be
//! used again: an answer may still be on its way.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse, DescribeGroupsRequest, DescribeGroupsResponse, FetchRequest,
    FetchResponse, ListGroupsRequest, ListGroupsResponse, ListOffsetsRequest, ListOffsetsResponse,
    MetadataRequest, MetadataResponse, OffsetFetchRequest, OffsetFetchResponse, RequestHeader,
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::security::Security;

/// A broker that lives answers these questions in milliseconds; a frozen one would hold whoever asks for ever.
const PATIENCE: Duration = Duration::from_secs(10);
/// Beyond what any answer here takes: 8 MiB of records and one batch, or the offsets of a hundred groups.
const LARGEST_ANSWER: usize = 128 << 20;

/// A request: its key, the versions of it that are spoken here, its answer.
pub(crate) trait Call: Encodable + HeaderVersion {
    const KEY: ApiKey;
    /// Lowest and highest version; the highest that the broker knows too is used.
    const VERSIONS: (i16, i16);
    type Answer: Decodable + HeaderVersion;
}

macro_rules! call {
    ($request:ident, $key:ident, $lowest:literal ..= $highest:literal, $answer:ident) => {
        impl $crate::broker::wire::Call for $request {
            const KEY: kafka_protocol::messages::ApiKey = kafka_protocol::messages::ApiKey::$key;
            const VERSIONS: (i16, i16) = ($lowest, $highest);
            type Answer = $answer;
        }
    };
}
pub(crate) use call;

call!(ApiVersionsRequest, ApiVersions, 0..=0, ApiVersionsResponse);
call!(SaslHandshakeRequest, SaslHandshake, 1..=1, SaslHandshakeResponse);
call!(SaslAuthenticateRequest, SaslAuthenticate, 0..=2, SaslAuthenticateResponse);
// 10 is the first with topic ids, which tell a topic from its successor of the same name.
call!(MetadataRequest, Metadata, 10..=12, MetadataResponse);
// 4 brought states, 5 types; before, every group is described as a classic one.
call!(ListGroupsRequest, ListGroups, 3..=5, ListGroupsResponse);
call!(DescribeGroupsRequest, DescribeGroups, 4..=6, DescribeGroupsResponse);
call!(ConsumerGroupDescribeRequest, ConsumerGroupDescribe, 0..=1, ConsumerGroupDescribeResponse);
// 8 is the first that asks for many groups at once (Kafka 3.0); 10 would name topics by id only.
call!(OffsetFetchRequest, OffsetFetch, 8..=9, OffsetFetchResponse);
call!(ListOffsetsRequest, ListOffsets, 4..=7, ListOffsetsResponse);
// 13 would name topics by id only.
call!(FetchRequest, Fetch, 11..=12, FetchResponse);

pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// A connection, authenticated as the configuration says.
pub(crate) struct Connection {
    stream: Box<dyn Duplex>,
    client_id: StrBytes,
    versions: BTreeMap<i16, (i16, i16)>,
    correlation: i32,
}

impl Connection {
    pub(crate) async fn open(address: &str, security: &Security) -> anyhow::Result<Self> {
        let opening = async {
            let stream = security.connect(address).await?;
            let client_id = StrBytes::from_string(security.client_id().to_owned());
            let mut connection =
                Self { stream, client_id, versions: BTreeMap::new(), correlation: 0 };
            let known = connection.exchange(&ApiVersionsRequest::default(), 0).await?;
            ensure!(known.error_code == 0, "the broker refused to name its versions");
            connection.versions = known
                .api_keys
                .iter()
                .map(|api| (api.api_key, (api.min_version, api.max_version)))
                .collect();
            security.authenticate(&mut connection).await?;
            anyhow::Ok(connection)
        };
        let opened = timeout(PATIENCE, opening).await.context("no answer in time");
        opened.flatten().with_context(|| format!("connecting to broker {address}"))
    }

    /// Whether the broker knows the request in a version that is spoken here.
    pub(crate) fn speaks<Q: Call>(&self) -> bool {
        self.version::<Q>().is_some()
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn call<Q: Call>(&mut self, request: &Q) -> anyhow::Result<Q::Answer> {
        let Some(version) = self.version::<Q>() else {
            bail!("the broker does not know {:?} in versions {:?}", Q::KEY, Q::VERSIONS);
        };
        let answer = timeout(PATIENCE, self.exchange(request, version)).await;
        answer.context("no answer in time").flatten().with_context(|| format!("{:?}", Q::KEY))
    }

    fn version<Q: Call>(&self) -> Option<i16> {
        let (lowest, highest) = self.versions.get(&(Q::KEY as i16))?;
        let version = (*highest).min(Q::VERSIONS.1);
        (version >= (*lowest).max(Q::VERSIONS.0)).then_some(version)
    }

    async fn exchange<Q: Call>(&mut self, request: &Q, version: i16) -> anyhow::Result<Q::Answer> {
        self.correlation = self.correlation.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(Q::KEY as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(self.client_id.clone()));
        let mut frame = vec![0; 4];
        header.encode(&mut frame, Q::header_version(version))?;
        request.encode(&mut frame, version)?;
        let length = i32::try_from(frame.len() - 4).context("a request too large to send")?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).await?;
        self.stream.flush().await?;

        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await?;
        let length = usize::try_from(i32::from_be_bytes(length)).context("a negative length")?;
        ensure!(length <= LARGEST_ANSWER, "an answer of {length} bytes: this is no Kafka broker");
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).await?;
        let mut answer = bytes::Bytes::from(answer);
        let header_version = Q::Answer::header_version(version);
        let header = kafka_protocol::messages::ResponseHeader::decode(&mut answer, header_version)?;
        ensure!(header.correlation_id == self.correlation, "the answer to another request");
        Q::Answer::decode(&mut answer, version)
    }
}

/// The error that a code stands for, if any.
pub(crate) fn error_of(code: i16) -> Option<String> {
    let known = || kafka_protocol::ResponseError::try_from_code(code);
    (code != 0).then(|| known().map_or_else(|| format!("error {code}"), |error| error.to_string()))
}
