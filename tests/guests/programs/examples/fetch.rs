//! Sends `times` HTTP requests to `url` with `method`, `headers` (`name: value`, one per line) and `body`, follows redirects
//! as a library would, and returns what came back.

waypost_guest_programs::filter!(answer);

use wasip2::http::outgoing_handler;
use wasip2::http::types::{ErrorCode, Fields, Method, OutgoingBody, OutgoingRequest, Scheme};
use waypost::plugin::config;

fn answer() -> String {
    let url = config::get("url").unwrap();
    let times = config::get("times").and_then(|text| text.parse().ok()).unwrap_or(1);
    (0..times).map(|_| follow(&url)).last().unwrap_or_default()
}

fn follow(url: &str) -> String {
    let mut url = url.to_owned();
    loop {
        match get(&url) {
            Ok((status, Some(location), _)) if (300..400).contains(&status) => url = location,
            Ok((status, _, bytes)) => return format!("{status}, {bytes} bytes"),
            Err(error) => return format!("{error:?}"),
        }
    }
}

fn get(url: &str) -> Result<(u16, Option<String>, usize), ErrorCode> {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let fields = Fields::new();
    for (name, value) in
        config::get("headers").unwrap_or_default().lines().filter_map(|line| line.split_once(": "))
    {
        if let Err(error) = fields.append(name, value.as_bytes()) {
            panic!("{name}: {error:?}");
        }
    }
    let request = OutgoingRequest::new(fields);
    request.set_scheme(Some(&if scheme == "http" { Scheme::Http } else { Scheme::Https })).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request.set_path_with_query(Some(&format!("/{path}"))).unwrap();
    let method = config::get("method").map_or(Method::Get, Method::Other);
    request
        .set_method(&if matches!(&method, Method::Other(name) if name == "POST") {
            Method::Post
        } else {
            method
        })
        .unwrap();
    let body = config::get("body").map(|text| (request.body().unwrap(), text));
    let coming = outgoing_handler::handle(request, None)?;
    if let Some((body, text)) = body {
        let stream = body.write().unwrap();
        stream.blocking_write_and_flush(text.as_bytes()).unwrap();
        drop(stream);
        OutgoingBody::finish(body, None).unwrap();
    }
    coming.subscribe().block();
    let response = coming.get().unwrap().unwrap()?;
    let location =
        response.headers().get("location").first().map(|value| String::from_utf8_lossy(value).into_owned());
    let body = response.consume().unwrap();
    let stream = body.stream().unwrap();
    let mut bytes = 0;
    // A failing stream means that the body broke off.
    while let Ok(read) = stream.blocking_read(64 * 1024) {
        bytes += read.len();
    }
    Ok((response.status(), location, bytes))
}
