use super::{Call, Ended};
use crate::domain::handler::Exit;
use crate::domain::plugin::AllowHost;
use crate::plugin::{Host, Refused};
use std::sync::Arc;
pub(in crate::handler) struct Component;
impl Component {
    pub(in crate::handler) async fn load(
        _: Arc<Host>,
        _: bytes::Bytes,
        _: Vec<AllowHost>,
    ) -> Result<Self, Arc<Refused>> {
        Ok(Self)
    }
    pub(in crate::handler) async fn run(&self, _: &Call) -> Ended {
        Ended::silent(Exit::Failed(String::new()))
    }
}
