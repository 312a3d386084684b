//! The agent check: a program beside the server says in a line how it is, in the words of HAProxy's agent-check
//! (HAProxy configuration manual, section 5.2, `agent-check`), or, when it is asked so, in those and with its figures as JSON.

use std::net::SocketAddr;

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    model::{Agent, AgentMode},
    plan::MAX_CONNECTIONS,
};

/// The longest line that is read.
const LINE: usize = 4096;

/// What `lb agent` says to `json`; of its figures those that are followed over time.
#[derive(Deserialize)]
struct Figures {
    words: String,
    memory_available_percent: f64,
}

/// What an agent said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Why the server is down, if it is.
    pub(super) down: Option<String>,
    /// What it says, down or not.
    pub(super) agent: Agent,
}

/// Connects, says `send`, and reads a line.
pub(super) async fn probe(address: SocketAddr, send: &str) -> Result<Answer, String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| super::describe(&error))?;
    stream.write_all(send.as_bytes()).await.map_err(|error| super::describe(&error))?;
    let mut line = Vec::new();
    // A closed connection ends a line as well.
    while line.len() < LINE && !line.contains(&b'\n') && !line.contains(&b'\r') {
        if stream.read_buf(&mut line).await.map_err(|error| super::describe(&error))? == 0 {
            break;
        }
    }
    read(&printable(&line))
}

/// The first line, which is going to stand on terminals and in logs.
fn printable(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let line = text.split(['\r', '\n']).next().unwrap_or_default();
    line.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Reads a line: an object of JSON with words in it, or the words alone.
fn read(line: &str) -> Result<Answer, String> {
    if !line.starts_with('{') {
        return parse(line);
    }
    let figures = serde_json::from_str::<Figures>(line);
    let figures = figures.map_err(|error| format!("the agent says JSON, and not that of `lb agent`: {error}"))?;
    let mut answer = parse(&printable(figures.words.as_bytes()))?;
    // A percentage, rounded as it is in the words.
    answer.agent.memory = Some(figures.memory_available_percent.round_ties_even().clamp(0.0, 100.0) as u16);
    Ok(answer)
}

/// Reads words: in any order, separated by spaces or commas; "# text" explains the words before it.
fn parse(line: &str) -> Result<Answer, String> {
    let (words, reason) = line.split_once('#').map_or((line, None), |(words, reason)| (words, Some(reason.trim())));
    let mut answer = Answer::default();
    let mut understood = false;
    for word in words.split([' ', ',']).filter(|word| !word.is_empty()) {
        let lower = word.to_ascii_lowercase();
        understood = true;
        match lower.as_str() {
            "up" => (answer.down, answer.agent.down) = (None, Some(false)),
            "down" | "failed" | "fail" | "stopped" => {
                answer.agent.down = Some(true);
                answer.down = Some(reason.map_or_else(|| lower.clone(), |reason| format!("{lower}: {reason}")));
            }
            "ready" => answer.agent.mode = Some(AgentMode::Ready),
            "drain" => answer.agent.mode = Some(AgentMode::Drain),
            "maint" => answer.agent.mode = Some(AgentMode::Maint),
            _ if lower.starts_with("maxconn:") => {
                let most = lower["maxconn:".len()..].parse::<u32>().ok().filter(|most| *most <= MAX_CONNECTIONS);
                let most = most.ok_or_else(|| format!("the agent says {word:?}: maxconn: is followed by a number"))?;
                answer.agent.max_connections = Some(most);
            }
            _ => match lower.strip_suffix('%').map(str::parse::<u16>) {
                Some(Ok(percent)) if percent <= 100 => answer.agent.percent = Some(percent),
                _ => {
                    return Err(format!(
                        "the agent says {word:?}, which is none of up, down, drain, maint, ready, maxconn:N and 0% to 100%"
                    ));
                }
            },
        }
    }
    answer.agent.words = line.to_owned();
    if understood { Ok(answer) } else { Err("the agent says nothing".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_answer_commands_a_terminal() {
        for (answer, expected) in
            [("up\tready 50%\r\nmore", "up ready 50%"), (" up # \x1b[2Jgone\u{85}\n", "up #  [2Jgone"), ("\nup", "")]
        {
            assert_eq!(printable(answer.as_bytes()), expected, "{answer:?}");
        }
        assert_eq!(printable(b"up \xff"), "up \u{fffd}");
    }

    #[test]
    fn figures_come_with_words() {
        let said =
            r#"{"schema_version":1,"words":"up ready 40% # memory","memory_available_percent":11.6,"load":[1,2,3]}"#;
        let answer = read(said).unwrap();
        assert_eq!((answer.agent.percent, answer.agent.memory), (Some(40), Some(12)));
        assert_eq!(answer.agent.words, "up ready 40% # memory");
        // In words that is "16 %".
        let between = read(&said.replace("11.6", "16.5")).unwrap();
        assert_eq!(between.agent.memory, Some(16));
        for wrong in ["{", "{}", r#"{"words":"fine","memory_available_percent":1}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(read("up").unwrap().agent.memory, None);
    }

    #[test]
    fn the_words_of_haproxy_are_understood() {
        let check = |line: &str, down: Option<&str>, agent: Agent| {
            let expected = Answer { down: down.map(str::to_owned), agent: Agent { words: line.to_owned(), ..agent } };
            assert_eq!(parse(line), Ok(expected), "{line:?}");
        };
        let says = |mode, percent| Agent { mode, percent, ..Agent::default() };
        let up = Agent { down: Some(false), ..Agent::default() };
        let down = Agent { down: Some(true), ..Agent::default() };
        check("up", None, up.clone());
        check("UP ready 75%", None, Agent { down: Some(false), ..says(Some(AgentMode::Ready), Some(75)) });
        check("75%", None, says(None, Some(75)));
        check("drain", None, says(Some(AgentMode::Drain), None));
        check("maint", None, says(Some(AgentMode::Maint), None));
        check("down", Some("down"), down.clone());
        check("stopped # for a backup", Some("stopped: for a backup"), down.clone());
        check("fail,50%", Some("fail"), Agent { percent: Some(50), ..down });
        check("up maxconn:100", None, Agent { max_connections: Some(100), ..up });
        check("maxconn:0", None, Agent { max_connections: Some(0), ..Agent::default() });
        for line in ["", "# nothing", "fine", "101%", "-1%", "%", "50", "maxconn:", "maxconn:-1", "maxconn:99999999"] {
            assert!(parse(line).is_err(), "{line:?}");
        }
    }
}
