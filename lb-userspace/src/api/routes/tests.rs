use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::*;
use crate::api::types::ErrorDocument;

/// What the API answers while no controller does.
async fn answer(method: Method, path: &str, body: String) -> (u16, ErrorDocument) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lb.sock");
    let socket = Socket::bind(&file).await.unwrap();
    tokio::spawn(serve(socket, Handle::unanswered(directory.path())));
    let stream = UnixStream::connect(&file).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "lb")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body:?}")))
}

#[tokio::test]
async fn every_failure_is_an_error_document() {
    let check = async |method: Method, path: &str, body: &str, status: u16, code: ErrorCode, says: &str| {
        let (found, document) = answer(method, path, body.to_owned()).await;
        assert_eq!((found, document.error.code), (status, code), "{path} {body}: {document:?}");
        assert!(document.error.message.contains(says), "{path} {body}: {document:?}");
    };
    use ErrorCode::{Internal, Invalid, NotFound};
    let (list, one) = ("/v1/services/web/backends", "/v1/services/web/backends/web-01");
    check(Method::GET, "/v2", "", 404, NotFound, "no such path").await;
    check(Method::PUT, list, "", 405, Invalid, "method").await;
    check(Method::GET, "/v1/status", "", 503, Internal, "stopping").await;
    check(Method::POST, "/v1/services", r#"{"listen":"10.0.0.1:80"}"#, 422, Invalid, "missing field `name`").await;
    check(Method::PATCH, "/v1/services/web", "[]", 422, Invalid, "not a list").await;
    check(Method::DELETE, "/v1/services/web?force=maybe", "", 400, Invalid, "force=true").await;
    check(Method::GET, "/v1/config/reload", "", 405, Invalid, "method").await;
    check(Method::POST, list, "{", 400, Invalid, "JSON").await;
    check(Method::POST, list, "{}", 422, Invalid, "missing field `address`").await;
    check(Method::POST, list, r#"{"address":"10.0.0.1:80","wieght":3}"#, 422, Invalid, "unknown field `wieght`").await;
    check(Method::POST, list, r#"{"address":"web-01:80"}"#, 400, Invalid, "not IP:PORT").await;
    check(Method::POST, list, r#"{"address":"10.0.0.1:80","weight":-1}"#, 422, Invalid, "-1").await;
    check(Method::GET, "/v1/events?sinse=1", "", 400, Invalid, "unknown field `sinse`").await;
    check(Method::GET, "/v1/events?since=yesterday", "", 400, Invalid, "since").await;
    check(Method::PATCH, one, r#"{"until":"tomorrow"}"#, 422, Invalid, "until").await;
    check(Method::PATCH, one, r#"{"admin":"gone"}"#, 422, Invalid, "unknown variant `gone`").await;
    check(Method::DELETE, &format!("{one}?farce=true"), "", 400, Invalid, "force=true").await;
    let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(BODY_LIMIT));
    check(Method::PATCH, one, &long, 413, Invalid, "").await;
}
