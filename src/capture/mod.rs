//! Captures: pcap and pcapng, read and written; link types. It must not know the engine.
