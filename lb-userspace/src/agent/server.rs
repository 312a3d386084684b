//! Answers whoever connects: with a line, or with JSON when asked for it by `GET` or by the word `json`.
//!
//! HAProxy may say nothing before it reads, so silence is a question as well. However many ask, and whatever they say or do
//! not read, the agent stays small and goes on measuring.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time,
};

use super::Report;

/// Askers at a time; others are turned away.
const ASKERS: usize = 64;
/// For how long a question is waited for.
const GRACE: Duration = Duration::from_millis(100);
/// How long an asker may take in all.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest question that is read.
const QUESTION: usize = 1024;
/// What is read of an asker that goes on talking: closing before would take the answer away from it (RFC 1122, 4.2.2.13).
const REST: u64 = 64 * 1024;

/// Answers for as long as it is polled.
pub(super) async fn answer(listener: TcpListener, last: watch::Receiver<Report>, stale: Duration) {
    let places = Arc::new(Semaphore::new(ASKERS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("cannot accept: {error}");
                // Descriptors may have run out; they come back as askers go.
                time::sleep(GRACE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let last = last.clone();
        tokio::spawn(async move {
            // Whoever asks may be gone, or too slow.
            let _ = time::timeout(PATIENCE, serve(stream, &last, stale)).await;
            drop(place);
        });
    }
}

async fn serve(mut stream: TcpStream, last: &watch::Receiver<Report>, stale: Duration) -> io::Result<()> {
    let question = question(&mut stream).await?;
    let report = last.borrow().clone();
    let answer = reply(&question, Some(&report).filter(|report| report.age() <= stale));
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(REST), &mut tokio::io::sink()).await.map(drop)
}

/// A line, or what comes of it in time.
async fn question(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut question = Vec::new();
    let line = async {
        while question.len() < QUESTION && !question.contains(&b'\n') && stream.read_buf(&mut question).await? > 0 {}
        io::Result::Ok(())
    };
    // Silence is a question.
    time::timeout(GRACE, line).await.unwrap_or(Ok(()))?;
    Ok(question)
}

/// What is said to a question. Without a report a line would be a lie: the connection ends without one.
fn reply(question: &[u8], report: Option<&Report>) -> String {
    if question.starts_with(b"GET ") {
        let (status, body) = match report {
            Some(report) => ("200 OK", report.json()),
            None => ("503 Service Unavailable", r#"{"schema_version":1,"error":"nothing was measured lately"}"#.into()),
        };
        return format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}\n",
            body.len() + 1
        );
    }
    match report {
        Some(report) if question.trim_ascii() == b"json" => format!("{}\n", report.json()),
        Some(report) => format!("{report}\n"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::agent::report::tests::report;

    #[test]
    fn each_question_has_its_answer() {
        let known = report(125);
        let check = |question: &str, report: Option<&Report>, begin: &str, end: &str| {
            let answer = reply(question.as_bytes(), report);
            assert!(answer.starts_with(begin) && answer.ends_with(end), "{question:?}: {answer}");
        };
        for question in ["", "\n", "lb\n", "GETTING BETTER\n", "jsons\n"] {
            check(question, Some(&known), "up ready 50% # memory", "load 0.8\n");
        }
        check("json\r\n", Some(&known), "{\"schema_version\":1", "}\n");
        check("GET / HTTP/1.1\r\nHost: a\r\n", Some(&known), "HTTP/1.1 200 OK\r\n", "}\n");
        check("GET /", Some(&known), "HTTP/1.1 200 OK\r\n", "}\n");
        check("GET / HTTP/1.1\r\n", None, "HTTP/1.1 503 ", "}\n");
        assert_eq!((reply(b"", None), reply(b"json\n", None)), (String::new(), String::new()));
    }

    async fn start(stale: Duration) -> (SocketAddr, watch::Sender<Report>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, last) = watch::channel(report(125));
        tokio::spawn(answer(listener, last, stale));
        (address, sender)
    }

    async fn ask(address: SocketAddr, question: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(question).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn who_says_nothing_gets_the_line_and_who_goes_on_talking_too() {
        let (address, _sender) = start(Duration::from_secs(60)).await;
        assert!(ask(address, b"").await.starts_with("up ready 50%"));
        assert!(ask(address, &[b'x'; 30_000]).await.starts_with("up ready 50%"));
    }

    #[tokio::test]
    async fn what_is_too_old_is_not_said() {
        let (address, sender) = start(Duration::from_millis(50)).await;
        time::sleep(Duration::from_millis(60)).await;
        assert_eq!(ask(address, b"\n").await, "");
        sender.send_replace(report(30));
        assert!(ask(address, b"\n").await.starts_with("up ready 0%"));
    }

    #[tokio::test]
    async fn those_who_only_wait_do_not_keep_others_out_for_long() {
        let (address, _sender) = start(Duration::from_secs(60)).await;
        // They have their line, and do not go.
        let mut idle = Vec::new();
        for _ in 0..ASKERS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"\n").await.unwrap();
            let mut first = [0; 1];
            stream.read_exact(&mut first).await.unwrap();
            idle.push(stream);
        }
        let mut turned_away = TcpStream::connect(address).await.unwrap();
        let mut answer = String::new();
        turned_away.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "");
        time::sleep(PATIENCE).await;
        assert!(ask(address, b"\n").await.starts_with("up ready"));
        drop(idle);
    }
}
