//! The parts of the rare path as functions of their own: global ones, which the verifier goes through once, with a context
//! and numbers of which it knows nothing.

#![expect(unsafe_code, reason = "the loader and the verifier go by the names")]

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_common::{
    fragment, http,
    ip::{Ip, Walk},
    mss, nat,
    rare::{self, Stages},
    tables::Tables,
    tcp_option::{self, TcpOption},
    time_wait::{self, Mark},
    verdict::Verdict,
    wire::Address4,
};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{frame::XdpFrame, maps::Maps, opaque};

/// Headers end before it; a bound for the verifier.
const L4_MASK: u32 = 0x7ff;

/// Options do.
const OPTION_MASK: u32 = 0xfff;

impl<const ROUGH: bool> Stages for XdpFrame<'_, ROUGH> {
    #[inline(always)]
    fn tell_apart<T: Tables>(&mut self, _: &T, sender: Address4) {
        call(self, |ctx| tell_apart(ctx, sender.0));
    }

    #[inline(always)]
    fn clamp_mss(&mut self, l4: usize, most: u16) {
        call(self, |ctx| clamp_mss(ctx, l4 as u32, most.into()));
    }

    #[inline(always)]
    fn mark(&self, l4: usize, length: u16) -> Mark {
        Mark(segment_mark(self.ctx.ctx, l4 as u32, length.into()))
    }

    #[inline(always)]
    fn expect<T: Tables>(&self, _: &T, slot: u32, l4: usize, length: u16) {
        syn_expect(self.ctx.ctx, slot, l4 as u32, length.into());
    }

    #[inline(always)]
    fn tcp_option(&self, offset: usize) -> Option<TcpOption> {
        let option = option_at(self.ctx.ctx, offset as u32);
        (option != 0).then_some(TcpOption { kind: option as u8, size: (option >> 8) as u8 })
    }

    #[inline(always)]
    fn response(&self, l4: usize, length: u16) -> Option<usize> {
        // The compiler sees what the function can return, and would leave out the check that the verifier needs.
        opaque::opaque(response_class(self.ctx.ctx, l4 as u32, length.into()) as usize).checked_sub(1)
    }

    #[inline(always)]
    fn is_request(&self, l4: usize, length: u16) -> bool {
        is_request(self.ctx.ctx, l4 as u32, length.into()) != 0
    }

    #[inline(always)]
    fn walk<I: Ip>(&self) -> Option<Walk> {
        if I::FAMILY == 4 {
            return I::walk(self);
        }
        // The verifier knows nothing of the word.
        Walk::from_word(walk_v6(self.ctx.ctx)).map(|walk| Walk { l4: walk.l4 & L4_MASK as usize, ..walk })
    }

    #[inline(always)]
    fn datagram<I: Ip, T: Tables>(&mut self, _: &T, l4: usize, protocol: u8) -> Verdict {
        let stage = if I::FAMILY == 4 { datagram_v4 } else { datagram_v6 };
        Verdict::from_word(call(self, |ctx| stage(ctx, l4 as u32, protocol.into())))
    }

    #[inline(always)]
    fn note<I: Ip, T: Tables>(&mut self, _: &T) {
        let stage = if I::FAMILY == 4 { note_v4 } else { note_v6 };
        call(self, |ctx| stage(ctx));
    }

    #[inline(always)]
    fn follow<I: Ip, T: Tables>(&mut self, _: &T) -> Verdict {
        let stage = if I::FAMILY == 4 { follow_v4 } else { follow_v6 };
        Verdict::from_word(call(self, |ctx| stage(ctx)))
    }

    #[inline(always)]
    fn too_big<I: Ip, T: Tables>(&mut self, _: &T, l4: usize, protocol: u8, mtu: u16) -> Verdict {
        let stage = if I::FAMILY == 4 { too_big_v4 } else { too_big_v6 };
        Verdict::from_word(call(self, |ctx| stage(ctx, l4 as u32, protocol.into(), mtu.into())))
    }

    #[inline(always)]
    fn message<I: Ip, T: Tables>(&mut self, _: &T, l4: usize) -> Verdict {
        let stage = if I::FAMILY == 4 { message_v4 } else { message_v6 };
        Verdict::from_word(call(self, |ctx| stage(ctx, l4 as u32)))
    }
}

/// Calls a function that may move the packet.
#[inline(always)]
fn call<const ROUGH: bool>(frame: &mut XdpFrame<'_, ROUGH>, function: impl FnOnce(*mut xdp_md) -> u64) -> u64 {
    let result = function(frame.ctx.ctx);
    frame.look_again();
    result
}

macro_rules! stages {
    ($family:ty: $datagram:ident, $note:ident, $follow:ident, $message:ident, $too_big:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $datagram(ctx: *mut xdp_md, l4: u32, protocol: u32) -> u64 {
            let ctx = XdpContext::new(ctx);
            let mut frame = XdpFrame::<true>::new(&ctx);
            rare::datagram::<$family, _, _>(&mut frame, &Maps, (l4 & L4_MASK) as usize, protocol as u8).to_word()
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $note(ctx: *mut xdp_md) -> u64 {
            let ctx = XdpContext::new(ctx);
            rare::note::<$family, _, _>(&mut XdpFrame::<true>::new(&ctx), &Maps);
            0
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $follow(ctx: *mut xdp_md) -> u64 {
            let ctx = XdpContext::new(ctx);
            rare::follow::<$family, _, _>(&mut XdpFrame::<true>::new(&ctx), &Maps).to_word()
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $message(ctx: *mut xdp_md, l4: u32) -> u64 {
            let ctx = XdpContext::new(ctx);
            rare::message::<$family, _, _>(&mut XdpFrame::<true>::new(&ctx), &Maps, (l4 & L4_MASK) as usize).to_word()
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $too_big(ctx: *mut xdp_md, l4: u32, protocol: u32, mtu: u32) -> u64 {
            let ctx = XdpContext::new(ctx);
            let (l4, protocol) = ((l4 & L4_MASK) as usize, protocol as u8);
            let mut frame = XdpFrame::<true>::new(&ctx);
            rare::too_big::<$family, _, _>(&mut frame, &Maps, l4, protocol, mtu as u16).to_word()
        }
    };
}

stages!(Ipv4Hdr: datagram_v4, note_v4, follow_v4, message_v4, too_big_v4);
stages!(Ipv6Hdr: datagram_v6, note_v6, follow_v6, message_v6, too_big_v6);

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_apart(ctx: *mut xdp_md, sender: u32) -> u64 {
    let ctx = XdpContext::new(ctx);
    fragment::tell_apart(&mut XdpFrame::<true>::new(&ctx), &Maps, Address4(sender));
    0
}

/// IPv4 has nothing to walk over.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_v6(ctx: *mut xdp_md) -> u64 {
    let ctx = XdpContext::new(ctx);
    Ipv6Hdr::walk(&XdpFrame::<true>::new(&ctx)).map_or(0, Walk::to_word)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn clamp_mss(ctx: *mut xdp_md, l4: u32, most: u32) -> u64 {
    let ctx = XdpContext::new(ctx);
    let _ = mss::clamp(&mut XdpFrame::<true>::new(&ctx), (l4 & L4_MASK) as usize, most as u16);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn segment_mark(ctx: *mut xdp_md, l4: u32, length: u32) -> u64 {
    let ctx = XdpContext::new(ctx);
    time_wait::mark(&XdpFrame::<true>::new(&ctx), (l4 & L4_MASK) as usize, length as u16).unwrap_or(Mark::NONE).0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn syn_expect(ctx: *mut xdp_md, slot: u32, l4: u32, length: u32) -> u64 {
    nat::expect(&Maps, slot, Mark(segment_mark(ctx, l4, length)));
    0
}

/// Kind and size; the size is not zero.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn option_at(ctx: *mut xdp_md, offset: u32) -> u64 {
    let ctx = XdpContext::new(ctx);
    let option = tcp_option::at(&XdpFrame::<true>::new(&ctx), (offset & OPTION_MASK) as usize);
    option.map_or(0, |TcpOption { kind, size }| u64::from(size) << 8 | u64::from(kind))
}

/// One more than the class, or none as zero.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn response_class(ctx: *mut xdp_md, l4: u32, length: u32) -> u64 {
    let ctx = XdpContext::new(ctx);
    let class = http::class(&XdpFrame::<true>::new(&ctx), (l4 & L4_MASK) as usize, length as u16);
    class.map_or(0, |class| class as u64 + 1)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_request(ctx: *mut xdp_md, l4: u32, length: u32) -> u64 {
    let ctx = XdpContext::new(ctx);
    http::is_request(&XdpFrame::<true>::new(&ctx), (l4 & L4_MASK) as usize, length as u16).into()
}
