//! How many files a process may have open, and who may have how many of them: a log that cannot open its own stops.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use weir_types::limits::{FILES_RESERVE, HTTP_CONNECTIONS_MAX, KAFKA_CONNECTIONS_MAX};

/// Connections that each listener may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) http: usize,
    pub(crate) kafka: usize,
}

/// Raises the limit as far as this user may, and shares it out.
pub(crate) fn share() -> Files {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let files = now.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let shares = of(files);
    if shares.kafka < KAFKA_CONNECTIONS_MAX {
        tracing::info!(
            files,
            kafka = shares.kafka,
            http = shares.http,
            "connections are bounded by the limit of open files"
        );
    }
    shares
}

/// The shares of `files`: first the log's and the peers' reserve, then a quarter of the rest for HTTP.
fn of(files: usize) -> Files {
    let left = files - FILES_RESERVE.min(files / 2);
    let http = HTTP_CONNECTIONS_MAX.min(left / 4);
    Files {
        http,
        kafka: KAFKA_CONNECTIONS_MAX.min(left - http),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_its_files_whatever_the_limit_is() {
        for files in [0, 1, 64, 300, 1_024, 4_096, 65_536, usize::MAX] {
            let shares = of(files);
            assert!(
                shares.http + shares.kafka <= files - FILES_RESERVE.min(files / 2),
                "{files}"
            );
        }
        assert_eq!(of(300), Files { http: 37, kafka: 113 });
        let all = of(1 << 20);
        assert_eq!(
            (all.http, all.kafka),
            (HTTP_CONNECTIONS_MAX, KAFKA_CONNECTIONS_MAX)
        );
    }
}
