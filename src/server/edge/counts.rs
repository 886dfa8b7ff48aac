//! Counts ended calls by method and code, and how long they took, for those who watch.
//!
//! Only methods that there are have counts of their own: clients name what they like, and must not
//! decide by that how much is kept. Counting takes no lock and no memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prost::{DecodeError, Message as _};
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use tonic::Code;

use crate::proto;
use crate::telemetry::durations::{DurationCounts, Durations};

/// The upper bounds of the buckets that durations are counted in, in seconds: from a look-up to
/// the longest wait for a password.
const TIME_BOUNDS: [f64; 15] =
    [0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What all methods are called that there are not.
const UNKNOWN: &str = "unknown";

/// The codes of gRPC, 0 to 16.
const CODES: usize = 17;

/// The calls that have ended since the start.
#[derive(Debug)]
pub struct CallCounts {
    methods: BTreeMap<String, MethodCounts>,
    unknown: MethodCounts,
}

/// The ended calls of one method.
#[derive(Debug, Default)]
pub(in crate::server) struct MethodCounts {
    by_code: [AtomicU64; CODES],
    /// Of a stream there are none: it lasts as long as its client wants.
    times: Option<DurationCounts<{ TIME_BOUNDS.len() }>>,
}

impl CallCounts {
    /// None yet, for the methods of all services that the process has.
    ///
    /// # Errors
    /// Only when an embedded descriptor set is broken, which no input can cause.
    pub fn new() -> Result<Self, DecodeError> {
        let embedded = [
            proto::DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut methods = BTreeMap::new();
        for set in embedded {
            methods.extend(methods_of(&FileDescriptorSet::decode(set)?));
        }
        Ok(Self { methods, unknown: MethodCounts::default() })
    }

    /// Counts a call of `method` (`package.Service/Method`) that ended with `code` and `took` so long.
    pub(super) fn ended(&self, method: &str, code: Code, took: Duration) {
        self.methods.get(method).unwrap_or(&self.unknown).ended(code, took);
    }

    /// The methods, and their counts.
    pub(in crate::server) fn methods(&self) -> impl Iterator<Item = (&str, &MethodCounts)> {
        let known = self.methods.iter().map(|(name, counts)| (name.as_str(), counts));
        known.chain([(UNKNOWN, &self.unknown)])
    }
}

/// A count for each method, by its name as calls have it.
fn methods_of(set: &FileDescriptorSet) -> Vec<(String, MethodCounts)> {
    let services = set.file.iter().flat_map(|file| file.service.iter().map(move |service| (file, service)));
    let methods = services.flat_map(|(file, service)| {
        let counted = move |method: &MethodDescriptorProto| {
            let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
            let is_stream = method.client_streaming() || method.server_streaming();
            (name, MethodCounts::new((!is_stream).then(|| DurationCounts::new(&TIME_BOUNDS))))
        };
        service.method.iter().map(counted)
    });
    methods.collect()
}

impl MethodCounts {
    fn new(times: Option<DurationCounts<{ TIME_BOUNDS.len() }>>) -> Self {
        Self { by_code: Default::default(), times }
    }

    fn ended(&self, code: Code, took: Duration) {
        self.by_code[code as usize].fetch_add(1, Relaxed);
        if let Some(times) = &self.times {
            times.record(took);
        }
    }

    /// How many ended with each code, those with none included.
    pub(in crate::server) fn by_code(&self) -> impl Iterator<Item = (Code, u64)> {
        (0..).map(Code::from_i32).zip(self.by_code.iter().map(|count| count.load(Relaxed)))
    }

    /// How long they took, where that is measured.
    pub(in crate::server) fn durations(&self) -> Option<Durations<{ TIME_BOUNDS.len() }>> {
        self.times.as_ref().map(DurationCounts::read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(counts: &CallCounts, method: &str, code: Code) -> u64 {
        let (_, counts) = counts.methods().find(|(name, _)| *name == method).unwrap();
        counts.by_code().find(|(of, _)| *of == code).unwrap().1
    }

    #[test]
    fn calls_are_counted_by_method_and_code() {
        let counts = CallCounts::new().unwrap();
        for (method, code) in [
            ("identity.v1.IdentityService/Login", Code::Ok),
            ("identity.v1.IdentityService/Login", Code::Unauthenticated),
            ("identity.v1.IdentityService/Login", Code::Unauthenticated),
            ("grpc.health.v1.Health/Check", Code::Ok),
        ] {
            counts.ended(method, code, Duration::from_millis(1));
        }
        assert_eq!(ended(&counts, "identity.v1.IdentityService/Login", Code::Ok), 1);
        assert_eq!(ended(&counts, "identity.v1.IdentityService/Login", Code::Unauthenticated), 2);
        assert_eq!(ended(&counts, "identity.v1.IdentityService/GetUser", Code::Ok), 0);
        assert_eq!(ended(&counts, "grpc.health.v1.Health/Check", Code::Ok), 1);
    }

    #[test]
    fn what_clients_make_up_is_counted_together() {
        let counts = CallCounts::new().unwrap();
        let before = counts.methods().count();
        for number in 0..1_000 {
            counts.ended(&format!("made.up/{number}"), Code::Unimplemented, Duration::ZERO);
        }
        assert_eq!(counts.methods().count(), before);
        assert_eq!(ended(&counts, UNKNOWN, Code::Unimplemented), 1_000);
    }

    #[test]
    fn calls_are_timed_and_streams_are_not() {
        let counts = CallCounts::new().unwrap();
        let login = "identity.v1.IdentityService/Login";
        counts.ended(login, Code::Ok, Duration::from_millis(1));
        let durations = |method| counts.methods().find(|(name, _)| *name == method).unwrap().1.durations();
        assert_eq!(durations(login).unwrap().sum, Duration::from_millis(1));
        assert_eq!(durations("grpc.health.v1.Health/Watch"), None);
        assert_eq!(durations(UNKNOWN), None);
    }
}
