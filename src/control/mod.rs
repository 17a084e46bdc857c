//! Requests and answers of the inspection socket, and their rendering. It must not know sockets.
