//! `wasi:io`: input at its end, output to the log, nothing to wait for.

use crate::bindings::resources::{InputStream, Nothing, OutputStream, Pollable};
use crate::bindings::wasi_virtual::wasi::io::{error, poll, streams};
use crate::host::Guest;
use crate::limits::LOG_LINE_BYTES_MAX;
use streams::StreamError;
use wasmtime::Result;
use wasmtime::component::Resource;

type Streamed<T> = Result<std::result::Result<T, StreamError>>;

impl error::Host for Guest {}
impl error::HostError for Guest {
    fn to_debug_string(&mut self, _: Resource<Nothing>) -> Result<String> {
        Ok(String::new())
    }

    fn drop(&mut self, _: Resource<Nothing>) -> Result<()> {
        Ok(())
    }
}

impl poll::Host for Guest {
    fn poll(&mut self, pollables: Vec<Resource<Pollable>>) -> Result<Vec<u32>> {
        Ok((0..pollables.len() as u32).collect())
    }
}

impl poll::HostPollable for Guest {
    fn ready(&mut self, _: Resource<Pollable>) -> Result<bool> {
        Ok(true)
    }

    fn block(&mut self, _: Resource<Pollable>) -> Result<()> {
        Ok(())
    }

    fn drop(&mut self, _: Resource<Pollable>) -> Result<()> {
        self.release();
        Ok(())
    }
}

impl streams::Host for Guest {}
impl streams::HostInputStream for Guest {
    fn read(&mut self, _: Resource<InputStream>, _: u64) -> Streamed<Vec<u8>> {
        Ok(Err(StreamError::Closed))
    }

    fn blocking_read(&mut self, _: Resource<InputStream>, _: u64) -> Streamed<Vec<u8>> {
        Ok(Err(StreamError::Closed))
    }

    fn skip(&mut self, _: Resource<InputStream>, _: u64) -> Streamed<u64> {
        Ok(Err(StreamError::Closed))
    }

    fn blocking_skip(&mut self, _: Resource<InputStream>, _: u64) -> Streamed<u64> {
        Ok(Err(StreamError::Closed))
    }

    fn subscribe(&mut self, _: Resource<InputStream>) -> Result<Resource<Pollable>> {
        self.handle(0)
    }

    fn drop(&mut self, _: Resource<InputStream>) -> Result<()> {
        self.release();
        Ok(())
    }
}

impl streams::HostOutputStream for Guest {
    fn check_write(&mut self, _: Resource<OutputStream>) -> Streamed<u64> {
        // Size of libc's writes; every byte counts against the call's budget.
        Ok(Ok(4 * LOG_LINE_BYTES_MAX as u64))
    }

    fn write(&mut self, stream: Resource<OutputStream>, contents: Vec<u8>) -> Streamed<()> {
        self.print(stream.rep(), &contents, false);
        Ok(Ok(()))
    }

    fn blocking_write_and_flush(
        &mut self,
        stream: Resource<OutputStream>,
        contents: Vec<u8>,
    ) -> Streamed<()> {
        self.write(stream, contents)
    }

    fn flush(&mut self, _: Resource<OutputStream>) -> Streamed<()> {
        Ok(Ok(()))
    }

    fn blocking_flush(&mut self, _: Resource<OutputStream>) -> Streamed<()> {
        Ok(Ok(()))
    }

    fn subscribe(&mut self, _: Resource<OutputStream>) -> Result<Resource<Pollable>> {
        self.handle(0)
    }

    fn write_zeroes(&mut self, _: Resource<OutputStream>, _: u64) -> Streamed<()> {
        Ok(Ok(()))
    }

    fn blocking_write_zeroes_and_flush(&mut self, _: Resource<OutputStream>, _: u64) -> Streamed<()> {
        Ok(Ok(()))
    }

    fn splice(&mut self, _: Resource<OutputStream>, _: Resource<InputStream>, _: u64) -> Streamed<u64> {
        Ok(Err(StreamError::Closed))
    }

    fn blocking_splice(
        &mut self,
        _: Resource<OutputStream>,
        _: Resource<InputStream>,
        _: u64,
    ) -> Streamed<u64> {
        Ok(Err(StreamError::Closed))
    }

    fn drop(&mut self, _: Resource<OutputStream>) -> Result<()> {
        self.release();
        Ok(())
    }
}
