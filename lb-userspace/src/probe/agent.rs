//! The agent check: a program beside the server says in a line how it is, in the words of HAProxy's agent-check
//! (HAProxy configuration manual, section 5.2, `agent-check`).

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::model::{Agent, AgentMode};

/// The longest line that is read.
const LINE: usize = 512;

/// What an agent said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Why the server is down, if it is.
    pub(super) down: Option<String>,
    /// What changes of its wishes.
    pub(super) agent: Agent,
}

/// Connects, says `send`, and reads a line.
pub(super) async fn probe(address: SocketAddr, send: &str) -> Result<(Answer, String), String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| super::describe(&error))?;
    stream.write_all(send.as_bytes()).await.map_err(|error| super::describe(&error))?;
    let mut line = Vec::new();
    // A closed connection ends a line as well.
    while line.len() < LINE && !line.contains(&b'\n') && !line.contains(&b'\r') {
        if stream.read_buf(&mut line).await.map_err(|error| super::describe(&error))? == 0 {
            break;
        }
    }
    let line = String::from_utf8_lossy(&line);
    let line = line.split(['\r', '\n']).next().unwrap_or_default().trim();
    Ok((parse(line)?, line.to_owned()))
}

/// Reads a line: words in any order, separated by spaces, tabs or commas; "# text" explains the words before it.
fn parse(line: &str) -> Result<Answer, String> {
    let (words, reason) = line.split_once('#').map_or((line, None), |(words, reason)| (words, Some(reason.trim())));
    let mut answer = Answer::default();
    let mut understood = false;
    for word in words.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        let lower = word.to_ascii_lowercase();
        understood = true;
        match lower.as_str() {
            "up" => answer.down = None,
            "down" | "failed" | "fail" | "stopped" => {
                answer.down = Some(reason.map_or_else(|| lower.clone(), |reason| format!("{lower}: {reason}")));
            }
            "ready" => answer.agent.mode = Some(AgentMode::Ready),
            "drain" => answer.agent.mode = Some(AgentMode::Drain),
            "maint" => answer.agent.mode = Some(AgentMode::Maint),
            // About connections, which is none of a packet forwarder's business.
            _ if lower.starts_with("maxconn:") => {}
            _ => match lower.strip_suffix('%').map(str::parse::<u16>) {
                Some(Ok(percent)) if percent <= 100 => answer.agent.percent = Some(percent),
                _ => {
                    return Err(format!(
                        "the agent says {word:?}, which is none of up, down, drain, maint, ready and 0% to 100%"
                    ));
                }
            },
        }
    }
    if understood { Ok(answer) } else { Err("the agent says nothing".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_haproxy_are_understood() {
        let check = |line: &str, down: Option<&str>, mode: Option<AgentMode>, percent: Option<u16>| {
            let expected = Answer { down: down.map(str::to_owned), agent: Agent { mode, percent } };
            assert_eq!(parse(line), Ok(expected), "{line:?}");
        };
        check("up", None, None, None);
        check("UP ready 75%", None, Some(AgentMode::Ready), Some(75));
        check("75%", None, None, Some(75));
        check("drain", None, Some(AgentMode::Drain), None);
        check("maint", None, Some(AgentMode::Maint), None);
        check("down", Some("down"), None, None);
        check("stopped # for a backup", Some("stopped: for a backup"), None, None);
        check("fail,50%", Some("fail"), None, Some(50));
        check("up maxconn:100", None, None, None);
        for line in ["", "# nothing", "fine", "101%", "-1%", "%", "50"] {
            assert!(parse(line).is_err(), "{line:?}");
        }
    }
}
