-- Sixteen requests at a time on each connection.

init = function(args)
   local one = wrk.format()
   requests = string.rep(one, 16)
end

request = function()
   return requests
end
