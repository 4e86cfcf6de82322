//! Conversions between the traits and the generated bindings. They move everything, and do not parse the data.

use std::marker::PhantomData;
use std::time::Duration;

use crate::bindings::filter::exports::waypost::plugin::filter;
use crate::bindings::imports::waypost::plugin::types;
use crate::bindings::metadata::exports::waypost::plugin::metadata;
use crate::bindings::policy::exports::waypost::plugin::policy;
use crate::bindings::transform::exports::waypost::plugin::transform;
use crate::{Context, Decision, Describe, Error, Event, Filter, Output, Payload, Policy, Transform, Verdict};

/// A policy as the bindings need it.
pub struct Deciding<P>(PhantomData<P>);
/// A filter as the bindings need it.
pub struct Filtering<P>(PhantomData<P>);
/// A transform as the bindings need it.
pub struct Transforming<P>(PhantomData<P>);
/// The metadata as the bindings need it.
pub struct Describing<P>(PhantomData<P>);

impl<P: Policy> policy::Guest for Deciding<P> {
    fn decide(
        event: types::Event,
        target: String,
        context: types::CallContext,
    ) -> Result<policy::Decision, types::PluginError> {
        match P::decide(&event.into(), &target, &context.into())? {
            Decision::Allow => Ok(policy::Decision::Allow),
            Decision::Deny(reason) => Ok(policy::Decision::Deny(reason)),
        }
    }
}

impl<P: Filter> filter::Guest for Filtering<P> {
    fn evaluate(
        event: types::Event,
        context: types::CallContext,
    ) -> Result<filter::Verdict, types::PluginError> {
        match P::evaluate(&event.into(), &context.into())? {
            Verdict::Deliver => Ok(filter::Verdict::Deliver),
            Verdict::Skip(reason) => Ok(filter::Verdict::Skip(reason)),
        }
    }
}

impl<P: Transform> transform::Guest for Transforming<P> {
    fn apply(
        event: types::Event,
        context: types::CallContext,
    ) -> Result<Vec<transform::Output>, types::PluginError> {
        let outputs = P::apply(event.into(), &context.into())?;
        Ok(outputs.into_iter().map(Into::into).collect())
    }
}

impl<P: Describe> metadata::Guest for Describing<P> {
    fn describe() -> metadata::Manifest {
        let manifest = P::describe();
        metadata::Manifest {
            name: manifest.name,
            version: manifest.version,
            description: manifest.description,
            config_schema: manifest.config_schema,
            wanted_hosts: manifest.wanted_hosts,
        }
    }

    fn check_config(config: String) -> Result<(), Vec<metadata::Problem>> {
        P::check_config(&config).map_err(|problems| {
            let problem =
                |problem: crate::Problem| metadata::Problem { at: problem.at, message: problem.message };
            problems.into_iter().map(problem).collect()
        })
    }
}

impl From<types::Event> for Event {
    fn from(event: types::Event) -> Self {
        Self {
            id: event.id,
            source: event.source,
            ty: event.type_,
            subject: event.subject,
            time: event.time,
            data_content_type: event.data_content_type,
            data_schema: event.data_schema,
            extensions: event.extensions,
            payload: event.data.map(Into::into),
        }
    }
}

impl From<Event> for types::Event {
    fn from(event: Event) -> Self {
        Self {
            id: event.id,
            source: event.source,
            type_: event.ty,
            subject: event.subject,
            time: event.time,
            data_content_type: event.data_content_type,
            data_schema: event.data_schema,
            extensions: event.extensions,
            data: event.payload.map(Into::into),
        }
    }
}

impl From<types::Payload> for Payload {
    fn from(payload: types::Payload) -> Self {
        match payload {
            types::Payload::Json(text) => Self::Json(text),
            types::Payload::Text(text) => Self::Text(text),
            types::Payload::Binary(bytes) => Self::Binary(bytes),
        }
    }
}

impl From<Payload> for types::Payload {
    fn from(payload: Payload) -> Self {
        match payload {
            Payload::Json(text) => Self::Json(text),
            Payload::Text(text) => Self::Text(text),
            Payload::Binary(bytes) => Self::Binary(bytes),
        }
    }
}

impl From<Output> for transform::Output {
    fn from(output: Output) -> Self {
        match output {
            Output::Event(event) => Self::Event(event.into()),
            Output::Raw(raw) => Self::Raw(transform::RawBody {
                content_type: raw.content_type,
                headers: raw.headers,
                body: raw.body.into(),
            }),
        }
    }
}

impl From<types::CallContext> for Context {
    fn from(context: types::CallContext) -> Self {
        Self {
            user: context.user,
            subscription: context.subscription,
            attempt: context.attempt,
            deadline: Duration::from_millis(context.deadline_ms.into()),
            now_ms: context.now_ms,
            trace_parent: context.trace_parent,
            labels: context.labels,
        }
    }
}

impl From<Error> for types::PluginError {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidEvent(message) => Self::InvalidEvent(message),
            Error::InvalidConfig(message) => Self::InvalidConfig(message),
            Error::Unavailable { message, retry_after } => {
                let ms = |wait: Duration| u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
                Self::Unavailable(types::RetryHint { message, retry_after_ms: retry_after.map(ms) })
            }
            Error::Internal(message) => Self::Internal(message),
        }
    }
}
