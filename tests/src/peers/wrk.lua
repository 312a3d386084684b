-- What wrk found, for a program to read.
done = function(summary, latency, requests)
  io.write(string.format("requests %d in %d us\n", summary.requests, summary.duration))
  io.write(string.format("half within %d us\n", latency:percentile(50)))
  io.write(string.format("99 percent within %d us\n", latency:percentile(99)))
  for kind, count in pairs(summary.errors) do
    io.write(string.format("%s errors: %d\n", kind, count))
  end
end
