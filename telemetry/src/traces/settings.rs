//! The standard variables of OpenTelemetry, as far as they are understood here. A mistake is an error at the start, not a
//! default that nobody asked for.

use std::env::VarError;

use anyhow::{Context, bail, ensure};
use opentelemetry::trace::{SpanKind, TraceId};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample};

use super::TraceContext;

/// For `--help`.
pub const HELP: &str = "Traces:
  Spans leave over OTLP once a collector is named; without OTEL_EXPORTER_OTLP_ENDPOINT nothing is recorded.
  OTEL_EXPORTER_OTLP_ENDPOINT   http://collector:4318; OTEL_EXPORTER_OTLP_TRACES_ENDPOINT for spans alone
  OTEL_EXPORTER_OTLP_PROTOCOL   http/protobuf (default, plain http only), or grpc (port 4317, http or https)
  OTEL_EXPORTER_OTLP_HEADERS    key=value,… sent along; put secrets here, never into the URL
  OTEL_EXPORTER_OTLP_TIMEOUT    milliseconds for one export (default 10000)
  OTEL_TRACES_SAMPLER, _ARG     parentbased_always_on (default); parentbased_traceidratio with 0.01 for one order in 100
  OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_*, OTEL_SDK_DISABLED as everywhere";

/// What the environment asks for.
#[derive(Debug)]
pub(super) struct Settings {
    /// Where to, for messages; never with a password.
    pub(super) endpoint: String,
    pub(super) transport: Transport,
    pub(super) sampling: Sampling,
}

/// How spans travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// Protobuf over plain HTTP.
    Http,
    /// gRPC; `tls` for https.
    Grpc { tls: bool },
}

/// Which traces are recorded.
#[derive(Debug)]
pub(super) struct Sampling {
    /// What the caller decided holds.
    by_parent: bool,
    sampler: Sampler,
}

impl Settings {
    /// `None`: nothing is to be recorded.
    pub(super) fn from_environment() -> anyhow::Result<Option<Self>> {
        Self::from(|name| match std::env::var(name) {
            // The specification: empty is unset.
            Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => bail!("{name} is not UTF-8"),
        })
    }

    fn from(read: impl Fn(&str) -> anyhow::Result<Option<String>>) -> anyhow::Result<Option<Self>> {
        let either = |name: &str| -> anyhow::Result<Option<String>> {
            let own = read(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))?;
            own.map_or_else(|| read(&format!("OTEL_EXPORTER_OTLP_{name}")), |own| Ok(Some(own)))
        };
        let disabled = read("OTEL_SDK_DISABLED")?.is_some_and(|it| it.eq_ignore_ascii_case("true"));
        let exporter = read("OTEL_TRACES_EXPORTER")?.unwrap_or_else(|| "otlp".to_owned());
        let Some(endpoint) = either("ENDPOINT")?.filter(|_| !disabled && exporter != "none") else {
            return Ok(None);
        };
        ensure!(exporter == "otlp", "OTEL_TRACES_EXPORTER is {exporter}; there are otlp and none");
        let (scheme, rest) = endpoint.split_once("://").unwrap_or_default();
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => bail!(
                "OTEL_EXPORTER_OTLP_ENDPOINT must be a URL that begins with http:// or https://"
            ),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        ensure!(
            !authority.contains('@'),
            "OTEL_EXPORTER_OTLP_ENDPOINT must not hold a password; use OTEL_EXPORTER_OTLP_HEADERS"
        );
        ensure!(!authority.is_empty(), "OTEL_EXPORTER_OTLP_ENDPOINT names no host");
        let protocol = either("PROTOCOL")?;
        let transport = match protocol.as_deref().unwrap_or("http/protobuf") {
            "grpc" => Transport::Grpc { tls },
            "http/protobuf" => {
                ensure!(!tls, "https needs OTEL_EXPORTER_OTLP_PROTOCOL=grpc");
                Transport::Http
            }
            other => {
                bail!("OTEL_EXPORTER_OTLP_PROTOCOL is {other}; there are http/protobuf and grpc")
            }
        };
        let sampling =
            Sampling::of(read("OTEL_TRACES_SAMPLER")?, read("OTEL_TRACES_SAMPLER_ARG")?)?;
        Ok(Some(Self { endpoint: format!("{scheme}://{authority}"), transport, sampling }))
    }
}

impl Sampling {
    fn of(name: Option<String>, argument: Option<String>) -> anyhow::Result<Self> {
        let name = name.as_deref().unwrap_or("parentbased_always_on");
        let (by_parent, roots) = match name.strip_prefix("parentbased_") {
            Some(roots) => (true, roots),
            None => (false, name),
        };
        let ratio = || {
            let text = argument.as_deref().unwrap_or("1");
            let ratio: f64 = text.parse().context("OTEL_TRACES_SAMPLER_ARG is not a number")?;
            ensure!((0.0..=1.0).contains(&ratio), "OTEL_TRACES_SAMPLER_ARG must be from 0 to 1");
            anyhow::Ok(ratio)
        };
        let sampler = match roots {
            "always_on" => Sampler::AlwaysOn,
            "always_off" => Sampler::AlwaysOff,
            "traceidratio" => Sampler::TraceIdRatioBased(ratio()?),
            _ => bail!(
                "OTEL_TRACES_SAMPLER is {name}; there are always_on, always_off and traceidratio, and each with parentbased_"
            ),
        };
        Ok(Self { by_parent, sampler })
    }

    /// Whether work that `caller` asked for is recorded.
    pub(super) fn follows(&self, caller: &TraceContext) -> bool {
        if self.by_parent { caller.is_sampled() } else { self.opens(super::trace_id(caller)) }
    }

    /// The same at a glance: `false` is certain.
    pub(super) fn may_follow(&self, traceparent: &str) -> bool {
        !self.by_parent || TraceContext::may_be_sampled(traceparent)
    }

    /// Whether a trace that nobody decided about is.
    pub(super) fn opens(&self, trace: TraceId) -> bool {
        let result = self.sampler.should_sample(None, trace, "", &SpanKind::Internal, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> anyhow::Result<Option<Settings>> {
        Settings::from(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            Ok(found.map(|(_, value)| (*value).to_owned()))
        })
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/x");
    const SAMPLED: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn without_an_endpoint_or_when_told_so_nothing_is_recorded() {
        assert!(read(&[]).unwrap().is_none());
        assert!(read(&[("OTEL_TRACES_SAMPLER", "always_on")]).unwrap().is_none());
        assert!(read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "True")]).unwrap().is_none());
        assert!(read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]).unwrap().is_none());
    }

    #[test]
    fn the_variable_for_traces_alone_wins() {
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://other:4317");
        let grpc = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc");

        let general = read(&[ENDPOINT]).unwrap().unwrap();
        let own = read(&[ENDPOINT, traces, grpc]).unwrap().unwrap();

        let found = (general.endpoint.as_str(), general.transport);
        assert_eq!(found, ("http://collector:4318", Transport::Http));
        let found = (own.endpoint.as_str(), own.transport);
        assert_eq!(found, ("https://other:4317", Transport::Grpc { tls: true }));
    }

    #[test]
    fn what_is_not_understood_is_an_error_that_names_its_variable() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@collector:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ] {
            let error = format!("{:#}", read(&[(name, value), ENDPOINT]).unwrap_err());

            assert!(error.contains(name) && !error.contains("secret"), "{name}={value}: {error}");
        }
        let ratio = ("OTEL_TRACES_SAMPLER", "traceidratio");
        for argument in ["1.5", "-1", "NaN", "many"] {
            read(&[ENDPOINT, ratio, ("OTEL_TRACES_SAMPLER_ARG", argument)]).unwrap_err();
        }
        let tls = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://collector:4318");
        assert!(read(&[tls]).unwrap_err().to_string().contains("grpc"));
    }

    #[test]
    fn a_parent_decides_only_where_it_is_asked_to() {
        let sampled = TraceContext::parse(SAMPLED).unwrap();
        let sampling = |name: &str, argument: &str| {
            Sampling::of(Some(name.to_owned()), Some(argument.to_owned())).unwrap()
        };
        let by_default = Sampling::of(None, None).unwrap();

        assert!(by_default.follows(&sampled) && by_default.opens(TraceId::from(1)));
        assert!(!by_default.follows(&sampled.sampled(false)));
        assert!(by_default.may_follow(sampled.as_str()));
        assert!(!by_default.may_follow(sampled.sampled(false).as_str()));
        let rare = sampling("parentbased_traceidratio", "0.01");
        assert!(rare.follows(&sampled) && !rare.opens(TraceId::from(u128::MAX)));
        let always = sampling("always_on", "");
        assert!(always.follows(&sampled.sampled(false)));
        assert!(always.may_follow(sampled.sampled(false).as_str()));
        assert!(!sampling("always_off", "").follows(&sampled));
    }
}
