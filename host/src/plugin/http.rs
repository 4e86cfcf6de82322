//! The one place where a guest's HTTP request is allowed or refused, and sent.

use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::domain::plugin::AllowHost;

/// A call's way out: the hosts that its subscription allows.
pub(super) struct Outbound {
    pub(super) allow_hosts: Vec<AllowHost>,
}

type Answered = (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Answered, Error>> + Send> {
        let _ = (request, &self.allow_hosts);
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}
