//! A connection to a broker: requests and responses in turn.

use super::ClientError;
use crate::api::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use crate::api::{API_VERSIONS, Api};
use crate::error::Code;
use crate::wire::{Reader, Wire, Writer};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_types::limits::KAFKA_REQUEST_BYTES_MAX;

/// Name of the client in the header of each request.
const CLIENT_ID: &str = "weir-check";
/// Header of a response and the smallest body.
const RESPONSE_BYTES_MIN: usize = 4;
/// Version of ApiVersions that every broker of the last ten years answers.
const FIRST_VERSION: i16 = 0;

/// A connection whose broker has told the versions that it serves.
pub(super) struct Connection {
    stream: TcpStream,
    correlation: i32,
    served: BTreeMap<i16, RangeInclusive<i16>>,
}

impl Connection {
    /// Connects to `addr` (host and port) and asks for the served versions.
    pub(super) async fn open(addr: &str) -> Result<Self, ClientError> {
        let io = |source| ClientError::Io {
            addr: addr.to_owned(),
            source,
        };
        let stream = TcpStream::connect(addr).await.map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        let mut connection = Self {
            stream,
            correlation: 0,
            served: BTreeMap::new(),
        };
        let request = ApiVersionsRequest::default();
        let answer = connection
            .exchange(API_VERSIONS, FIRST_VERSION, false, &request)
            .await
            .map_err(io)?;
        let response: ApiVersionsResponse = read(answer, FIRST_VERSION, false, false)?;
        super::check("ApiVersions", response.error, None)?;
        let served = response.api_keys.iter().map(|api| (api.key, api.min..=api.max));
        connection.served = served.collect();
        Ok(connection)
    }

    /// Sends `request` in the highest version up to `most` that both sides know, and returns the response.
    ///
    /// The connection is of no use after an error, nor when the future is dropped before its end.
    pub(super) async fn call<A: Api>(
        &mut self,
        request: &A::Request,
        most: i16,
    ) -> Result<A::Response, ClientError> {
        self.call_as(A::KEY, A::VERSIONS, A::FLEXIBLE, request, most)
            .await
    }

    /// As [`Connection::call`], for a request that the listener does not serve as an [`Api`].
    pub(super) async fn call_as<Response: Wire>(
        &mut self,
        key: i16,
        versions: RangeInclusive<i16>,
        flexible_from: i16,
        request: &impl Wire,
        most: i16,
    ) -> Result<Response, ClientError> {
        let name = crate::api::name(key);
        let unserved = || ClientError::Unserved { name: name.clone() };
        let served = self.served.get(&key).ok_or_else(unserved)?;
        let version = (*served.end()).min(*versions.end()).min(most);
        if version < (*served.start()).max(*versions.start()) {
            return Err(unserved());
        }
        let flexible = version >= flexible_from;
        let answer = self.exchange(key, version, flexible, request).await;
        let answer = answer.map_err(|source| ClientError::Lost { name, source })?;
        read(answer, version, flexible, true)
    }

    async fn exchange(
        &mut self,
        key: i16,
        version: i16,
        flexible: bool,
        request: &impl Wire,
    ) -> std::io::Result<Bytes> {
        self.correlation = self.correlation.wrapping_add(1);
        let mut writer = Writer::default();
        key.write(&mut writer, 0);
        version.write(&mut writer, 0);
        self.correlation.write(&mut writer, 0);
        // The client's name has the old form in every version.
        Some(CLIENT_ID.to_owned()).write(&mut writer, 0);
        writer.set_flexible(flexible);
        writer.end_struct(&[]);
        request.write(&mut writer, version);
        self.stream.write_all(&writer.finish().0.concat()).await?;
        let wrong = |text: String| std::io::Error::new(std::io::ErrorKind::InvalidData, text);
        let announced = self.stream.read_i32().await?;
        let length = usize::try_from(announced).unwrap_or(usize::MAX);
        if !(RESPONSE_BYTES_MIN..=KAFKA_REQUEST_BYTES_MAX).contains(&length) {
            return Err(wrong(format!(
                "a response of {announced} bytes: not Kafka's protocol"
            )));
        }
        // Grows with the bytes that came.
        let mut answer = BytesMut::new();
        while answer.len() < length {
            let rest = (length - answer.len()) as u64;
            if (&mut self.stream).take(rest).read_buf(&mut answer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let mut answer = answer.freeze();
        let correlation = bytes::Buf::get_i32(&mut answer);
        if correlation != self.correlation {
            return Err(wrong(format!(
                "the response to request {correlation} came instead of {}",
                self.correlation
            )));
        }
        Ok(answer)
    }
}

fn read<T: Wire>(answer: Bytes, version: i16, flexible: bool, has_tags: bool) -> Result<T, ClientError> {
    let mut reader = Reader::new(answer);
    reader.set_flexible(flexible);
    if has_tags {
        reader.end_struct(|_, _| Ok(()))?;
    }
    Ok(T::read(&mut reader, version)?)
}

impl From<crate::wire::WireError> for ClientError {
    fn from(source: crate::wire::WireError) -> Self {
        Self::Response(source)
    }
}

/// Names an error code for a message.
pub(super) fn named(code: Code) -> String {
    match code.name() {
        Some(name) => format!("{name} ({})", code.0),
        None => format!("error {}", code.0),
    }
}
