//! Kafka requests by hand.

use std::io::{Read, Write};
use std::net::TcpStream;

/// Builds a request without its length: key, version, correlation 7, no client id, and `body`.
pub fn request(key: i16, version: i16, flexible: bool, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&key.to_be_bytes());
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&7i32.to_be_bytes());
    bytes.extend_from_slice(&(-1i16).to_be_bytes());
    if flexible {
        bytes.push(0);
    }
    bytes.extend_from_slice(body);
    bytes
}

/// Sends a request and reads its answer.
///
/// # Errors
/// When the node closes the connection.
pub fn ask(stream: &mut TcpStream, request: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(&[&(request.len() as u32).to_be_bytes(), request].concat())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// Connects from another address of this machine.
///
/// # Errors
/// When the node does not accept the connection.
pub async fn connect_from(address: [u8; 4], to: std::net::SocketAddr) -> std::io::Result<TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((address, 0).into())?;
    let stream = socket.connect(to).await?.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}
