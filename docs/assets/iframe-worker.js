// A page that is opened from the disk may start no worker, and the search of the theme needs one. Here it runs in a
// hidden frame of the page instead. Nothing is asked of the network; on a server this does nothing.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      const inner = frame.contentWindow
      const script = frame.contentDocument.createElement("script")
      inner.postMessage = data => {
        const event = new MessageEvent("message", { data })
        this.dispatchEvent(event)
        if (this.onmessage) this.onmessage(event)
      }
      this.frame = frame
      this.ready = new Promise((done, failed) => {
        script.onload = done
        script.onerror = failed
      })
      script.src = url
      frame.contentDocument.body.appendChild(script)
    }

    postMessage(data) {
      const inner = this.frame.contentWindow
      this.ready.then(() => inner.dispatchEvent(new inner.MessageEvent("message", { data })))
    }

    terminate() {
      this.frame.remove()
    }
  }
}
