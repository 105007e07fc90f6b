//! `wasi:cli`: no arguments, no environment, no terminal; an exit is a trap.

use crate::bindings::resources::{InputStream, Nothing, OutputStream};
use crate::bindings::wasi_virtual::wasi::cli;
use crate::host::Guest;
use wasmtime::Result;
use wasmtime::component::Resource;

impl cli::environment::Host for Guest {
    fn get_environment(&mut self) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn get_arguments(&mut self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn initial_cwd(&mut self) -> Result<Option<String>> {
        Ok(None)
    }
}

impl cli::exit::Host for Guest {
    fn exit(&mut self, status: std::result::Result<(), ()>) -> Result<()> {
        let how = if status.is_ok() { "success" } else { "failure" };
        Err(wasmtime::Error::msg(format!(
            "called `exit` with {how}: a module returns"
        )))
    }
}

impl cli::stdin::Host for Guest {
    fn get_stdin(&mut self) -> Result<Resource<InputStream>> {
        self.handle(0)
    }
}

impl cli::stdout::Host for Guest {
    fn get_stdout(&mut self) -> Result<Resource<OutputStream>> {
        self.handle(1)
    }
}

impl cli::stderr::Host for Guest {
    fn get_stderr(&mut self) -> Result<Resource<OutputStream>> {
        self.handle(2)
    }
}

impl cli::terminal_input::Host for Guest {}
impl cli::terminal_input::HostTerminalInput for Guest {
    fn drop(&mut self, _: Resource<Nothing>) -> Result<()> {
        Ok(())
    }
}

impl cli::terminal_output::Host for Guest {}
impl cli::terminal_output::HostTerminalOutput for Guest {
    fn drop(&mut self, _: Resource<Nothing>) -> Result<()> {
        Ok(())
    }
}

impl cli::terminal_stdin::Host for Guest {
    fn get_terminal_stdin(&mut self) -> Result<Option<Resource<Nothing>>> {
        Ok(None)
    }
}

impl cli::terminal_stdout::Host for Guest {
    fn get_terminal_stdout(&mut self) -> Result<Option<Resource<Nothing>>> {
        Ok(None)
    }
}

impl cli::terminal_stderr::Host for Guest {
    fn get_terminal_stderr(&mut self) -> Result<Option<Resource<Nothing>>> {
        Ok(None)
    }
}
