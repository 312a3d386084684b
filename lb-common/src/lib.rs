//! The packet path of `lb` as pure Rust.
//!
//! [`pipeline::process`] takes a frame and the tables, and says what becomes of the frame. It is written over two
//! traits, [`packet::Packet`] and [`tables::Tables`], and compiled twice: to BPF, where `lb-ebpf` implements them with
//! the XDP context and maps, and to the host, where tests, properties and fuzzers implement them with plain memory.
//!
//! Always true here, [`host`](crate) apart: no clock, no I/O, no allocation, no panic, no slice over a packet.
#![no_std]

pub mod bench;
pub mod checksum;
pub mod ecn;
pub mod encap;
pub mod event;
pub mod flow;
pub mod fragment;
pub mod handshake;
pub mod hash;
pub mod header;
pub mod http;
pub mod icmp;
pub mod ip;
pub mod layout;
pub mod mss;
pub mod nat;
pub mod packet;
pub mod parse;
pub mod pipeline;
pub mod rare;
pub mod reset;
pub mod rewrite;
pub mod room;
pub mod schedule;
pub mod service;
pub mod tables;
pub mod tcp_option;
pub mod time_wait;
pub mod verdict;
pub mod vlan;
pub mod wire;

#[cfg(any(test, feature = "host"))]
pub mod host;

#[cfg(any(test, feature = "host"))]
extern crate std;
