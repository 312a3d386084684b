use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Bytes};
use tokio::net::TcpStream;

use super::*;
use crate::exchange::exchange;

/// What is answered: status, media type, body.
async fn get(path: &str, controller: Option<Handle>) -> (u16, String, String) {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let exposed = Exposed { controller: watch::channel(controller).1, pin_dir: "/nonexistent".into() };
    tokio::spawn(serve(listener, exposed));
    let stream = TcpStream::connect(address).await.unwrap();
    let request = Request::get(path).header("host", "lb").body(Empty::<Bytes>::new()).unwrap();
    exchange(stream, request, async |response| {
        let status = response.status().as_u16();
        let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, kind.unwrap_or_default(), String::from_utf8_lossy(&body).into_owned()))
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_daemon_that_starts_is_alive_and_not_ready() {
    assert_eq!(get("/healthz", None).await.0, 200);
    for path in ["/readyz", "/metrics", "/"] {
        let (status, _, body) = get(path, None).await;
        assert_eq!((status, body.as_str()), (503, "starting\n"), "{path}");
    }
    let (status, _, body) = get("/metric", None).await;
    assert!(status == 404 && body.contains("/metrics"), "{body}");
}

#[tokio::test]
async fn a_daemon_whose_controller_is_gone_is_neither() {
    let directory = tempfile::tempdir().unwrap();
    for path in ["/healthz", "/readyz"] {
        let (status, _, body) = get(path, Some(Handle::unanswered(directory.path()))).await;
        assert_eq!((status, body.as_str()), (503, "the daemon is stopping\n"), "{path}");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let error = bind(address).await.unwrap_err().to_string();
    assert!(error.contains(&format!("cannot listen on {address}")) && error.contains("\"off\""), "{error}");
}
