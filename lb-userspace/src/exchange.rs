//! One HTTP request over a connection of its own.

use hyper::{Request, Response, body::Body, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Sends a request and has `read` take what is wanted of the answer. The connection ends with the call.
///
/// # Errors
/// When there is no answer, or none of HTTP.
pub(crate) async fn exchange<B, T>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<B>,
    read: impl AsyncFnOnce(Response<Incoming>) -> hyper::Result<T>,
) -> hyper::Result<T>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async { read(sender.send_request(request).await?).await };
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        closed = &mut connection => {
            closed?;
            answer.await
        }
    }
}
